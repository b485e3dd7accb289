"""Files are written whole or not at all, and what is read is what was written."""

import os
from pathlib import Path

import pytest

from src.pipeline.process import UserError
from src.pipeline.files import read_columns, read_json, sha256, write_file, write_json, write_table


@pytest.fixture
def fails_to_flush(monkeypatch):
    """A function that makes the flush to disk raise an error."""

    def fail(error: BaseException) -> None:
        def fsync(_):
            raise error

        monkeypatch.setattr(os, "fsync", fsync)

    return fail


def test_a_file_is_written_with_the_folders_it_needs(tmp_path):
    write_file(tmp_path / "one/two/file", b"content")

    assert (tmp_path / "one/two/file").read_bytes() == b"content"


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_earlier_file_and_nothing_else(tmp_path, fails_to_flush, error):
    (tmp_path / "file").write_bytes(b"earlier")
    fails_to_flush(error)

    with pytest.raises(type(error)):
        write_file(tmp_path / "file", b"later")

    assert (tmp_path / "file").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path, fails_to_flush):
    fails_to_flush(OSError(28, os.strerror(28)))

    with pytest.raises(UserError, match=r"can't write .*file: No space left on device"):
        write_file(tmp_path / "file", b"later")

    assert list(tmp_path.iterdir()) == []


def test_the_content_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    rename = Path.replace
    monkeypatch.setattr(os, "fsync", lambda _: events.append("flush"))
    monkeypatch.setattr(Path, "replace", lambda path, target: events.append("rename") or rename(path, target))

    write_file(tmp_path / "file", b"content")

    assert events == ["flush", "rename"]


def test_what_a_kill_left_is_taken_over_by_the_next_write(tmp_path):
    (tmp_path / ".file.partial").write_bytes(b"half")

    write_file(tmp_path / "file", b"content")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_takes_no_files_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(UserError, match=r"can't write .*below: "):
        write_file(tmp_path / "file" / "below", b"content")


def test_json_comes_back_as_it_was(tmp_path):
    value = {"accuracy": 0.1 + 0.2, "images": 3, "names": ["a", "×"], "none": None}

    write_json(tmp_path / "value.json", value)

    assert read_json(tmp_path / "value.json") == value


def test_json_is_written_to_be_read_by_people(tmp_path):
    write_json(tmp_path / "value.json", {"test": {"errors": 3}})

    assert (tmp_path / "value.json").read_text() == '{\n  "test": {\n    "errors": 3\n  }\n}\n'


@pytest.mark.parametrize("content", [b"", b'{"test": ', b"\xff\xfe"])
def test_damaged_json_is_a_clear_error(tmp_path, content):
    (tmp_path / "value.json").write_bytes(content)

    with pytest.raises(UserError, match=r"value\.json is missing or damaged; run `dvc repro`"):
        read_json(tmp_path / "value.json")


def test_missing_json_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"value\.json is missing or damaged; run `dvc repro`"):
        read_json(tmp_path / "value.json")


def test_a_table_comes_back_by_its_columns(tmp_path):
    write_table(tmp_path / "table.csv", [{"class": "0", "f1": 0.5}, {"class": "1, or 2", "f1": 1.0}])

    columns = read_columns(tmp_path / "table.csv")

    assert columns == {"class": ["0", "1, or 2"], "f1": ["0.5", "1.0"]}


def test_a_table_has_a_line_for_each_row_after_its_header(tmp_path):
    write_table(tmp_path / "table.csv", [{"class": "0", "f1": 0.5}, {"class": "1", "f1": 1.0}])

    assert (tmp_path / "table.csv").read_bytes() == b"class,f1\n0,0.5\n1,1.0\n"


def test_a_curve_of_dvclives_is_read_by_its_columns(tmp_path):
    (tmp_path / "loss.tsv").write_text("step\tloss\n1\t0.5\n2\t0.25\n")

    columns = read_columns(tmp_path / "loss.tsv")

    assert columns == {"step": ["1", "2"], "loss": ["0.5", "0.25"]}


def test_a_curve_without_a_point_has_its_columns_all_the_same(tmp_path):
    (tmp_path / "loss.tsv").write_text("step\tloss\n")

    columns = read_columns(tmp_path / "loss.tsv")

    assert columns == {"step": [], "loss": []}


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n", b"a,b\n1\n", b"\xff"])
def test_a_damaged_table_is_a_clear_error(tmp_path, content):
    (tmp_path / "table.csv").write_bytes(content)

    with pytest.raises(UserError, match=r"table\.csv is missing or damaged; run `dvc repro`"):
        read_columns(tmp_path / "table.csv")


def test_a_files_hash_is_its_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")

    # the example of FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
