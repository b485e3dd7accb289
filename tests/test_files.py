"""Files are written whole or not at all, and what is read is what was written."""

import os
from pathlib import Path

import pytest

from src.pipeline.files import read_columns, read_json, write_file, write_json
from src.pipeline.process import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError(28, "No space left"), UserError)]
)
def test_an_interrupted_write_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch, error, raised):
    (tmp_path / "file").write_bytes(b"earlier")

    def fail(_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(raised):
        write_file(tmp_path / "file", b"later")

    assert (tmp_path / "file").read_bytes() == b"earlier"
    assert names(tmp_path) == ["file"]


def test_the_content_is_on_disk_under_a_hidden_name_of_the_writers_before_it_has_its_own(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append((os.fstat(file).st_size, names(tmp_path))))

    write_file(tmp_path / "file", b"content", suffix=".7")

    assert seen == [(7, [".file.7"])]


def test_json_comes_back_as_it_was_and_has_no_number_that_is_not_finite(tmp_path):
    value = {"test": {"accuracy": 0.1 + 0.2, "name": "×"}}
    write_json(tmp_path / "value.json", value)

    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "value.json", {"loss": float("nan")})

    assert read_json(tmp_path / "value.json") == value
    assert len((tmp_path / "value.json").read_text().splitlines()) == 6  # for people, and for a diff


def read_column(path):
    return read_columns(path, {"a": float})


@pytest.mark.parametrize(
    ("read", "content"),
    [
        *((read_json, content) for content in (None, b'{"test": ')),
        *((read_column, content) for content in (None, b"a,b\n1\n", b"b\n1\n", b"a\nx\n")),
    ],
)
def test_a_result_that_is_missing_or_damaged_is_an_error_that_names_it(tmp_path, read, content):
    if content is not None:
        (tmp_path / "result").write_bytes(content)

    with pytest.raises(UserError, match=f"{tmp_path}/result .*dvc repro"):
        read(tmp_path / "result")
