"""Kill it, starve it, feed it damaged files: the end is the undisturbed result or one clear line, and nothing is lost.

`make test` runs a quick selection, `make test-all` the full campaign.
"""

import json
import random
import re
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import faults
from helpers.faults import contents, disturb, leftovers
from helpers.project import Project, make_project, needs_posix, slow

from src.pipeline.process import UserError
from src.resnet.model_file import encode_model, load_model
from src.resnet.network import build_model

pytestmark = needs_posix

IMPORTED = 1_500  # modules, by each stage at least, after the first of ours
EPOCHS = 2  # of the full campaign, so that there is an epoch's end to be killed at


# Signals


@pytest.mark.parametrize("stage", ["train", *map(slow, ("download", "evaluate", "report"))])
def test_ctrl_c_while_a_stage_imports_its_libraries_is_no_traceback(trained, tries, stage):
    chance = random.Random(stage)
    for _ in range(tries("SIGINT while a stage starts", quick=1, full=10)):
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


class Undisturbed(NamedTuple):
    """A clone where ``dvc repro`` ran to its end, and how long each stage took there."""

    project: Project
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def undisturbed(request, tmp_path_factory) -> Undisturbed:
    if not request.config.getoption("--all"):
        pytest.skip("takes long: part of `make test-all`")
    project = long_project(tmp_path_factory.mktemp("undisturbed"))
    return Undisturbed(project, faults.seconds_by_stage(project))


def long_project(path: Path) -> Project:
    """A clone where nothing has run, with parameters for several epochs."""
    project = make_project(path)
    project.set_params(epochs=EPOCHS)
    project.commit("several epochs")
    return project


def status(project: Project) -> str:
    """All that lies in a project and is not committed: its results, and what a fault left lying about."""
    return project.run("git", "status", "--porcelain", "--untracked-files=all").stdout


def check_whole(project: Project, undisturbed: Undisturbed) -> None:
    """Check what stands under a final name: it is whole, and the curves, which grow, are the first epochs'."""
    expected = contents(undisturbed.project.path, "data", "models", "metrics")
    found = contents(project.path, "data", "models", "metrics")
    for name, content in found.items():
        if name.endswith(".tsv"):
            assert expected[name].startswith(content), name
        elif name == "metrics/train/metrics.json":
            assert json.loads(content).get("step", 0) <= EPOCHS
        else:
            assert content == expected[name], name


def check_end(project: Project, undisturbed: Undisturbed) -> None:
    """Check that ``dvc repro`` goes on to the undisturbed end, and leaves nothing lying about."""
    project.run("dvc", "repro")
    assert project.read("dvc.lock") == undisturbed.project.read("dvc.lock")
    names = ("data", "models", "metrics")
    assert contents(project.path, *names) == contents(undisturbed.project.path, *names)
    assert status(project) == status(undisturbed.project)
    assert leftovers(project) == []


def test_after_a_sigkill_at_any_moment_the_next_run_ends_as_if_undisturbed(undisturbed, tmp_path, tries):
    chance = random.Random(0)
    total = tries("SIGKILL of the process group, then dvc repro", quick=0, full=18)
    kills = resumed = 0
    lasts = dict(undisturbed.seconds)  # how long each stage takes, as far as is known
    for number in range(2 * total):
        project = long_project(tmp_path / str(number))
        for stage in ["download", "train", "train", "train", "evaluate", "report"][: total - kills]:
            seconds = chance.uniform(0, lasts[stage])
            output = disturb(
                project, "dvc", "repro",
                mark=f"Running stage '{stage}'", wait=lambda: time.sleep(seconds), number=signal.SIGKILL,  # noqa: B023
            )  # fmt: skip
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


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGTERM to dvc alone"])
def test_a_signal_lets_the_batch_end_saves_and_says_how_to_go_on(undisturbed, tmp_path, tries, how):
    chance = random.Random(how)
    for attempt in range(tries(f"{how}, then dvc repro", quick=0, full=2)):
        seconds, output = chance.uniform(0, 1), None
        while output is None and seconds > 0.01:  # a faster machine has less time for it
            project = long_project(tmp_path / f"{attempt}, {seconds:.2f} s")
            output = disturb(
                project, "dvc", "repro",
                mark=f"epoch 1/{EPOCHS}:", wait=lambda: time.sleep(seconds), number=getattr(signal, how.split()[0]),  # noqa: B023
                group="alone" not in how,
            )  # fmt: skip
            seconds /= 3

        assert output, "training was through before the signal came"
        assert re.search(r"interrupted: step \d+ is saved", output), output
        assert "Traceback" not in output
        check_whole(project, undisturbed)
        check_end(project, undisturbed)


# Damaged files


def test_any_mutation_of_the_model_is_noticed(tmp_path, tries, mutations):
    content = encode_model(build_model(10), {"class_names": list("0123456789")})
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
        slow("download", 1_000_000, "data/mnist/MNIST/raw/train-images-idx3-ubyte"),
        slow("train", 1_000_000, "models/model.safetensors"),
        ("evaluate", 1000, "metrics/evaluate/predictions.csv"),
        slow("report", 1000, "metrics/report/"),
    ],
)
def test_an_output_that_cannot_be_written_is_a_clear_line_and_the_earlier_one_stays(trained, fails, stage, room, named):
    earlier = contents(trained.path, named)

    done = faults.run_without_room(trained, stage, room)

    assert done.returncode == 1
    fails(done, "can't write", named)
    assert earlier
    assert contents(trained.path, named) == earlier
    assert [path for path in leftovers(trained) if path.suffix == ".partial"] == []
