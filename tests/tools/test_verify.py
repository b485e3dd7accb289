"""``make verify``: the three verdicts, the first file that differs, and that a clone computes and leaves nothing."""

import contextlib
import json
import re
import signal
import sys
from pathlib import Path

import pytest
from helpers.project import needs_posix, quick_params

from reproductions import verify
from reproductions.comparison import compare

TOLERANCE = {"loss": 0.01, "accuracy": 0.01, "source": "this test"}
MODEL, RUN, REPORT = "models/model.safetensors", "models/run.json", "metrics/report.md"
CLASSES = "metrics/evaluate/classes.csv"
VERIFY = ("python", "-m", "reproductions", "--full")


def summary() -> dict:
    """What ``make verify`` gathers of the run in the working folder, with logits."""
    used = json.loads(Path(RUN).read_text())
    return json.loads(json.dumps(verify.summarise() | {"used": used, "logits": [[0.5, 1.5]]}))


@pytest.fixture(scope="module")
def run(trained_once) -> dict:
    with contextlib.chdir(trained_once.path):
        return summary()


def spoil(project) -> None:
    text = project.read(CLASSES)
    (project.path / CLASSES).write_text(text[:-2] + str((int(text[-2]) + 1) % 10) + "\n")


def records(project) -> set:
    return set((project.path / "reproductions").glob("*-20*.json"))


def left_in(temporary: Path) -> list[str]:
    """The names of what a command left in a folder, but for the cache that PyTorch makes there."""
    return [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]


def changed(run: dict, *outputs: str, **values: object) -> dict:
    """A copy of a summary with other hashes and values."""
    copy = json.loads(json.dumps(run | values))
    for stage, hashes in copy["md5"].items():
        copy["md5"][stage] = {path: "another" if path in outputs else md5 for path, md5 in hashes.items()}
    return copy


def test_a_run_is_the_same_bytes_as_itself(run):
    record = compare(run, run, TOLERANCE)

    assert (record["verdict"], record["differing"], record["other"]) == ("the same bytes", [], {})
    assert record["differences"] == {"loss": 0, "accuracy": 0, "predictions": 0, "logits": 0}
    assert len(run["loss"]) == len(run["accuracy"]) == 3  # train, validation, test
    assert len(run["predictions"]) == 1000


def test_one_changed_byte_in_git_is_different_whatever_dvc_lock_says(run, trained, monkeypatch):
    monkeypatch.chdir(trained.path)
    spoil(trained)

    record = compare(summary(), run, TOLERANCE)

    assert (record["verdict"], record["differing"]) == ("different", [("evaluate", CLASSES)])


@pytest.mark.parametrize(
    ("outputs", "shift", "verdict", "first"),
    [
        ((MODEL, CLASSES), 0.009, "the same to rounding", ("train", MODEL)),
        ((MODEL, CLASSES), 0.011, "different", ("train", MODEL)),
        (("data/manifest.json", MODEL), 0, "different", ("download", "data/manifest.json")),
        ((CLASSES,), 0, "different", ("evaluate", CLASSES)),  # of the same model
    ],
)
def test_another_model_is_the_same_to_rounding_within_the_tolerance(run, outputs, shift, verdict, first):
    other = changed(run, *outputs, loss=[loss + shift for loss in run["loss"]])

    record = compare(run, other, TOLERANCE)

    assert (record["verdict"], record["differing"][0]) == (verdict, first)
    assert record["differences"]["loss"] == pytest.approx(shift)


def test_a_missing_output_and_a_missing_epoch_are_different(run):
    without = changed(run, MODEL)
    del without["md5"]["evaluate"][CLASSES]

    missing = compare(run, without, TOLERANCE)
    shorter = compare(run, changed(run, MODEL, loss=run["loss"][:-1]), TOLERANCE)

    assert (missing["verdict"], missing["differing"][-1]) == ("different", ("evaluate", CLASSES))
    assert (shorter["verdict"], shorter["differences"]["loss"]) == ("different", None)


def test_another_python_is_named_and_what_names_it_may_differ(run):
    other = changed(run, RUN, REPORT, used=run["used"] | {"python": "3.99.0"})

    record = compare(run, other, TOLERANCE)
    without = compare(run, changed(run, RUN, REPORT), TOLERANCE)

    assert (record["verdict"], record["other"]) == ("the same bytes", {"python": [run["used"]["python"], "3.99.0"]})
    assert (without["verdict"], without["differing"][0]) == ("different", ("train", RUN))


def test_the_samples_settings_are_parameters_that_there_are_to_values_that_they_may_take():
    assert quick_params(**verify.SAMPLE).model_dump().items() >= verify.SAMPLE.items()


@needs_posix
@pytest.mark.slow
def test_a_run_is_repeated_in_a_clone_of_which_nothing_stays(trained, tmp_path_factory):
    temporary, committed = tmp_path_factory.mktemp("temporary"), records(trained)
    same = trained.run(*VERIFY, TMPDIR=str(temporary))
    (record,) = records(trained) - committed
    values = json.loads(record.read_text())
    record.unlink()
    spoil(trained)
    trained.commit("a wrong figure")

    different = trained.run(*VERIFY, "--keep", str(temporary / "kept"), ok=False, TMPDIR=str(temporary))

    assert "epoch 1/1:" in same.stdout  # computed, though the cache has it
    assert (values["run"], values["verdict"], values["by"]) == ("whole", "the same bytes", "")
    assert f"verify: different, on {values['machine'].partition(',')[0]}" in different.stdout
    assert f"first to differ: {CLASSES}, of evaluate" in different.stdout
    assert left_in(temporary) == ["kept"]
    assert (temporary / "kept/dvc.lock").read_text() == trained.read("dvc.lock")


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_one_leaves_nothing(trained, tmp_path_factory, number):
    temporary, committed = tmp_path_factory.mktemp("temporary"), records(trained)
    process = trained.start(sys.executable, *VERIFY[1:], TMPDIR=str(temporary))
    seen = next(line for line in process.stdout if re.match("train: ", line))

    process.send_signal(number)
    output, _ = process.communicate(timeout=120)

    assert (seen[:6], process.returncode) == ("train:", 130), output
    assert left_in(temporary) == []
    assert records(trained) == committed
