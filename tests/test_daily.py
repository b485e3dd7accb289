"""The daily recipes, and what they leave: a remote, a second clone, training elsewhere.

`test_walk.py` types the commands of the docs; here the results are compared, byte by byte.
"""

from pathlib import Path

import pytest
import torch
from helpers.project import Project, stages_run
from helpers.server import NO_NETWORK
from torchvision.models import resnet18

LARGE = ("data/mnist", "data/weights", "models/model.safetensors", "models/run.json")  # in DVC's cache, not in Git


def large_files(project: Project) -> dict[str, bytes]:
    """The large results by name, and the lock."""
    paths = [project.path / "dvc.lock"]
    for name in LARGE:
        paths += [project.path / name, *(project.path / name).rglob("*")]
    return {path.relative_to(project.path).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def publish(project: Project, folder: Path) -> None:
    """Push a clone, its data and its models to a Git server and a DVC remote, each a folder."""
    project.run("git", "init", "-q", "--bare", "-b", "main", str(folder / "origin"))
    project.run("git", "remote", "add", "origin", str(folder / "origin"))
    project.run("dvc", "remote", "add", "--local", "-d", "storage", str(folder / "storage"))
    project.run("dvc", "push")
    project.run("git", "push", "-q", "-u", "origin", "main")


def clone(folder: Path, target: Path) -> Project:
    """A second clone, which knows the first one's remotes alone."""
    project = Project(target)
    project.run("git", "clone", "-q", str(folder / "origin"), ".")
    project.run("dvc", "remote", "add", "--local", "-d", "storage", str(folder / "storage"))
    return project


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture
def second_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("second")


def test_a_second_clone_that_pulls_needs_no_network_and_trains_nothing(trained, folder, second_path):
    publish(trained, folder)
    second = clone(folder, second_path)

    second.run("dvc", "pull", **NO_NETWORK)
    done = second.run("dvc", "repro", **NO_NETWORK)

    assert large_files(second) == large_files(trained)
    assert "up to date" in done.stdout
    assert second.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_other_weights_are_taken_back_without_the_place_they_came_from(trained):
    own = trained.path / "own.pth"
    torch.save(resnet18().state_dict(), own)
    trained.set_params(weights="own.pth")
    trained.run("dvc", "repro", "download")
    trained.run("git", "commit", "-q", "--all", "-m", "from weights of one's own")
    own.unlink()
    before = large_files(trained)
    trained.set_params(weights="random")
    trained.run("dvc", "repro", "download")

    trained.run("git", "checkout", "params.yaml", "dvc.lock", "data")
    trained.run("dvc", "checkout", "data/mnist", "data/weights")
    done = trained.run("dvc", "repro", "download")

    assert stages_run(done.stdout) == []
    assert large_files(trained) == before


@pytest.mark.slow
def test_an_experiment_trained_elsewhere_comes_home_and_trains_nothing_there(longer, folder, second_path):
    trained_there = large_files(longer)
    longer.run("git", "checkout", "-q", ".")
    longer.run("dvc", "checkout", "-q")
    publish(longer, folder)
    home = clone(folder, second_path)
    home.run("dvc", "pull")

    longer.run("dvc", "exp", "push", "origin", "longer")
    home.run("dvc", "exp", "pull", "origin", "longer")
    home.run("dvc", "exp", "apply", "longer")
    done = home.run("dvc", "repro", "evaluate", **NO_NETWORK)

    assert large_files(home) == trained_there
    assert stages_run(done.stdout) == []
