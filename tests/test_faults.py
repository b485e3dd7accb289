"""Kill it, starve it, feed it damaged files: the end is the undisturbed result or one clear line, and nothing is lost.

`make test` runs a quick selection, `make test-all` the full campaign.
"""

import contextlib
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from helpers.project import Project, make_project, needs_posix, slow

from src.pipeline.process import UserError
from src.resnet.model_file import encode_model, load_model
from src.resnet.network import build_model

pytestmark = needs_posix

IMPORTED = 1_500  # modules, by each stage at least, after the first of ours
EPOCHS = 2  # of the full campaign, so that there is an epoch's end to be killed at
RESULTS = ("data", "models", "metrics")


# Signals


@pytest.mark.slow  # `test_process.py` has a cheap one
@pytest.mark.parametrize("stage", ["download", "train", "evaluate", "report"])
def test_ctrl_c_while_a_stage_imports_its_libraries_is_no_traceback(trained, stage):
    chance = random.Random(stage)
    for _ in range(10):
        # A line for each module that it has imported.
        process = trained.start("python", "-X", "importtime", "-m", f"src.{stage}")
        for line in process.stdout:
            if line.endswith(" src.pipeline.process\n"):
                break  # what comes next is imported by `run`
        for _ in range(chance.randint(10, IMPORTED)):
            process.stdout.readline()

        process.send_signal(signal.SIGINT)
        errors = process.stdout.read()

        assert process.wait(timeout=60) == 128 + signal.SIGINT
        assert "interrupted" in errors
        assert "Traceback" not in errors


def long_project(path: Path) -> Project:
    """A clone where nothing has run, with parameters for several epochs."""
    project = make_project(path)
    project.set_params(epochs=EPOCHS)
    project.commit("several epochs")
    return project


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Project:
    """A `long_project` where ``dvc repro`` ran to its end. Its ``seconds`` are those that each stage took there."""
    project = long_project(tmp_path_factory.mktemp("undisturbed"))
    project.seconds, stage, began = {}, None, 0.0
    process = project.start("dvc", "repro")
    for line in process.stdout:
        if found := re.match(r"Running stage '(\w+)'", line):
            stage, began = found[1], time.monotonic()
        elif stage:
            project.seconds[stage] = time.monotonic() - began
    assert process.wait() == 0
    return project


def disturb(project: Project, number: int, mark: str, seconds: float, *, group: bool = True) -> str | None:
    """Run ``dvc repro``, and send it a signal so many seconds after a line that begins with ``mark``.

    All its processes get the signal, as from Ctrl-C, unless ``group`` is False.

    Returns:
        What it printed, None where it was through before the signal came.
    """
    process = project.start("dvc", "repro")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(mark):
            break
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, number)
    lines += process.stdout  # to the end of all its processes: each holds the pipe open
    return "".join(lines) if process.wait(timeout=60) else None


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    """Read all files under these names, files or folders, that are not hidden."""
    found = [path for name in names for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if path.name[0] != "."}


def half_written(project: Project) -> list[Path]:
    """The files that a kill can leave and an error may not."""
    return [path for name in RESULTS for path in (project.path / name).rglob(".*.partial")]


def check_whole(project: Project, undisturbed: Project) -> None:
    """Check what stands under a final name: it is whole, and the curves, which grow, are the first epochs'."""
    expected = contents(undisturbed.path, *RESULTS)
    for name, content in contents(project.path, *RESULTS).items():
        if name.endswith(".tsv"):
            assert expected[name].startswith(content), name
        elif name == "metrics/train/metrics.json":
            assert json.loads(content).get("step", 0) <= EPOCHS
        else:
            assert content == expected[name], name


def check_end(project: Project, undisturbed: Project) -> None:
    """Check that ``dvc repro`` goes on to the undisturbed end, and leaves nothing lying about."""
    status = ("git", "status", "--porcelain", "--untracked-files=all")
    project.run("dvc", "repro")
    assert project.read("dvc.lock") == undisturbed.read("dvc.lock")
    assert contents(project.path, *RESULTS) == contents(undisturbed.path, *RESULTS)
    assert project.run(*status).stdout == undisturbed.run(*status).stdout
    assert half_written(project) + list(project.path.glob(".dvc/tmp/checkpoints/*")) == []


@pytest.mark.slow
def test_after_a_sigkill_at_any_moment_the_next_run_ends_as_if_undisturbed(undisturbed, tmp_path):
    chance, total = random.Random(0), 18
    kills = resumed = 0
    lasts = dict(undisturbed.seconds)  # how long each stage takes, as far as is known
    for number in range(2 * total):
        project = long_project(tmp_path / str(number))
        for stage in ["download", "train", "train", "train", "evaluate", "report"][: total - kills]:
            seconds = chance.uniform(0, lasts[stage])
            output = disturb(project, signal.SIGKILL, f"Running stage '{stage}'", seconds)
            if output is None:  # it was through: the machine is faster than it was, or has less to do
                lasts[stage] *= 0.7
            kills += output is not None
            resumed += "going on from step" in (output or "")
            check_whole(project, undisturbed)
        check_end(project, undisturbed)
        if kills == total:
            break

    assert kills == total
    assert resumed > 0  # some kill did fall between a checkpoint and the end


@pytest.mark.slow
@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)])
def test_a_signal_lets_the_batch_end_saves_and_says_how_to_go_on(undisturbed, tmp_path, number, group, attempt):
    seconds, output = random.Random(f"{number} {group} {attempt}").uniform(0, 1), None
    while output is None and seconds > 0.01:  # a faster machine has less time for it
        project = long_project(tmp_path / f"{seconds:.2f} s")
        output = disturb(project, number, f"epoch 1/{EPOCHS}:", seconds, group=group)
        seconds /= 3

    assert output, "training was through before the signal came"
    assert re.search(r"interrupted: step \d+ is saved", output), output
    assert "Traceback" not in output
    check_whole(project, undisturbed)
    check_end(project, undisturbed)


# Damaged files


def test_any_mutation_of_the_model_is_noticed(tmp_path, tries, mutations):
    content = encode_model(build_model("resnet18", 10), {"class_names": list("0123456789")})
    header = 8 + int.from_bytes(content[:8], "little")
    count = tries("model file mutated", quick=6, full=60)
    for first, last in ((0, header), (header, None)):
        for mutated in mutations(content, count // 2, first, last):
            (tmp_path / "model").write_bytes(mutated)

            try:
                load_model(tmp_path / "model")
            except UserError as error:
                assert str(tmp_path / "model") in str(error)
                assert "\n" not in str(error)
            else:  # only metadata that is not needed to load it
                assert mutated[header:] == content[header:]


# Outputs that can't be written


@pytest.mark.parametrize(
    ("stage", "room", "named"),
    [
        ("download", 2000, "data/weights/imagenet.safetensors"),
        slow("train", 2000, "models/model.safetensors"),
        slow("evaluate", 2, "metrics/evaluate/predictions.csv"),
        slow("report", 2, "metrics/report/"),
    ],
)
def test_an_output_that_cannot_be_written_is_a_clear_line_and_the_earlier_one_stays(trained, fails, stage, room, named):
    earlier = contents(trained.path, named)

    # No file may be larger than ``room`` blocks of 512 bytes.
    done = trained.run("sh", "-c", f"ulimit -f {room}; exec python -m src.{stage}", ok=False)

    assert done.returncode == 1
    fails(done, "can't write", named)
    assert earlier
    assert contents(trained.path, named) == earlier
    assert half_written(trained) == []
