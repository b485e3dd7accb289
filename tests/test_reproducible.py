"""The same run gives the same bytes: wherever, however and beside whatever it runs, and after a kill too."""

import hashlib
import json
import os
import platform
import re
import shutil
import signal
from pathlib import Path

import dvc.api
import pytest
import torch
from helpers.environment import odd_values
from helpers.project import Project, needs_posix, slow

PINNED = Path(__file__).with_name("pinned.json")


def platform_key(project: Project) -> str:
    """What the bits of a result depend on besides the run itself: libraries, processor, precision, threads."""
    try:
        info = Path("/proc/cpuinfo").read_text()
        caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    except OSError:
        info, caches = platform.processor(), []
    processor = re.findall(r"^(?:vendor_id|cpu family|model)\s*: (.*)", info, re.M)[:3] or [info]
    sizes = [path.read_text().strip() for path in caches]
    (machine,) = re.findall(r"^train: on (.*)", project.repro.stdout, re.M)
    return f"torch {torch.__version__}, {' '.join(processor)}, caches {' '.join(sizes)}, {machine}"


def results(project: Project) -> dict[str, str]:
    """The SHA-256 of the model and of the metrics of a run."""
    names = ("models/model.safetensors", "metrics/train/metrics.json", "metrics/evaluate/metrics.json")
    return {name: hashlib.sha256((project.path / name).read_bytes()).hexdigest() for name in names}


def lock_of(project: Project, experiment: str) -> str:
    """The dvc.lock of an experiment, by its name."""
    return dvc.api.read("dvc.lock", repo=str(project.path), rev=experiment)


def forget_runs(project: Project) -> None:
    """Empty DVC's run cache, from which it would take the results of the same run instead of running it again."""
    shutil.rmtree(project.path / ".dvc/cache/runs")


def back_to_the_commit(project: Project) -> None:
    """Undo what an experiment changed in the workspace."""
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout")


def test_the_sample_runs_results_are_the_pinned_ones_of_this_platform(trained_once):
    key = platform_key(trained_once)
    pinned = json.loads(PINNED.read_text())
    if key not in pinned:
        pytest.skip(f"nothing is pinned for this platform: {key!r}; the next test compares two of its own runs")

    found = {name: results(trained_once)[name] for name in pinned[key]}

    assert found == pinned[key], f"the numbers have changed; where they should, pin them in {PINNED.name}: {key!r}"


@pytest.mark.parametrize("value", ["1", slow("0"), slow("true"), slow("none"), slow("/no/such/folder")])
def test_no_variable_of_any_library_changes_the_result(trained, value):
    """All of them at once: what gets through changes something."""
    lock, settings = trained.read("dvc.lock"), trained.path.with_name("matplotlibrc")
    settings.write_text("backend: svg\nfont.family: serif\naxes.facecolor: black\nsavefig.dpi: 30\n")
    odd = odd_values(value) | {"MATPLOTLIBRC": str(settings), "TZ": "Asia/Tokyo"}

    trained.run("dvc", "repro", "--single-item", "--force", "train", "evaluate", "report", **odd)

    assert trained.read("dvc.lock") == lock


@needs_posix
@pytest.mark.slow
def test_two_trainings_at_once_give_what_one_alone_gives_and_do_not_hold_each_other_up(trained, tmp_path_factory):
    trained.set_params(epochs=0.5)
    clones = [trained, *(trained.copy(tmp_path_factory.mktemp(name)) for name in ("another name", "and a third"))]

    def train(projects: list[Project]) -> float:
        """Train in all of these at the same time; return the processors' seconds that it took."""
        before = os.times()
        processes = [project.start("python", "-m", "src.train") for project in projects]
        for process in processes:
            output, _ = process.communicate(timeout=900)
            assert process.returncode == 0, output
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    alone, together = train(clones[:1]), train(clones[1:])

    assert results(clones[0]) == results(clones[1]) == results(clones[2])
    assert together < 3 * alone  # twice the work; where threads spin while they wait for each other, many times that


@pytest.mark.slow
def test_every_way_to_run_an_experiment_gives_the_same_bytes(trained):
    trained.run("dvc", "exp", "run", "-n", "here", "-S", "seed=1")
    lock = trained.read("dvc.lock")
    back_to_the_commit(trained)

    forget_runs(trained)
    temporary = trained.run("dvc", "exp", "run", "--temp", "-n", "temporary", "-S", "seed=1")
    forget_runs(trained)
    trained.run("dvc", "exp", "run", "--queue", "-n", "queued", "-S", "seed=1")
    trained.run("dvc", "exp", "run", "--queue", "-n", "beside", "-S", "seed=2")
    trained.run("dvc", "exp", "run", "--run-all", "-j", "2")
    forget_runs(trained)
    trained.set_params(seed=1)
    repro = trained.run("dvc", "repro")

    for done in (temporary, trained.run("dvc", "queue", "logs", "queued"), repro):
        assert "epoch 1/1:" in done.stdout
    for experiment in ("here", "temporary", "queued"):
        assert lock_of(trained, experiment) == lock
    assert lock_of(trained, "beside") != lock
    assert trained.read("dvc.lock") == lock


@pytest.mark.slow
def test_a_killed_temporary_experiment_goes_on_where_it_was(trained):
    trained.run("dvc", "exp", "run", "-n", "alone", "-S", "epochs=4")
    back_to_the_commit(trained)
    forget_runs(trained)
    command = ["dvc", "exp", "run", "--temp", "-n", "killed", "-S", "epochs=4"]
    process = trained.start(*command)
    for line in process.stdout:
        if line.startswith("epoch 2/4"):
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.wait()

    done = trained.run(*command)

    assert re.search(r"going on from step \d+ of \d+", done.stdout)
    assert lock_of(trained, "killed") == lock_of(trained, "alone")
