"""The daily recipes, and what they leave: a remote, a second clone, training elsewhere.

`test_walk.py` types the commands of the docs; here DVC's hashes are compared.
"""

from pathlib import Path

import pytest
from helpers.project import Project, stages_run
from helpers.server import NO_NETWORK


def publish(project: Project, folder: Path) -> None:
    """Push a clone, its data and its models to a Git server and a DVC remote, each a folder."""
    project.run("git", "init", "-q", "--bare", "-b", "main", str(folder / "origin"))
    project.run("git", "remote", "add", "origin", str(folder / "origin"))
    project.run("dvc", "remote", "add", "--local", "-d", "storage", str(folder / "storage"))
    project.run("dvc", "push")
    project.run("git", "push", "-q", "-u", "origin", "main")


def clone(folder: Path, target: Path) -> Project:
    """A second clone, which knows the first one's remotes alone."""
    Project(folder).run("git", "clone", "-q", "origin", str(target))
    project = Project(target)
    project.run("dvc", "remote", "add", "--local", "-d", "storage", str(folder / "storage"))
    return project


def test_a_second_clone_that_pulls_needs_no_network_and_trains_nothing(trained, tmp_path_factory):
    servers = tmp_path_factory.mktemp("servers")
    publish(trained, servers)
    second = clone(servers, servers / "second")

    second.run("dvc", "pull", **NO_NETWORK)
    done = second.run("dvc", "repro", **NO_NETWORK)

    assert "up to date" in done.stdout
    assert second.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_an_experiment_trained_elsewhere_comes_home_and_trains_nothing_there(longer, tmp_path_factory):
    servers = tmp_path_factory.mktemp("servers")
    lock_there = longer.read("dvc.lock")
    longer.run("git", "checkout", "-q", ".")
    longer.run("dvc", "checkout", "-q")
    publish(longer, servers)
    home = clone(servers, servers / "home")
    home.run("dvc", "pull")

    longer.run("dvc", "exp", "push", "origin", "longer")
    home.run("dvc", "exp", "pull", "origin", "longer")
    home.run("dvc", "exp", "apply", "longer")
    done = home.run("dvc", "repro", "evaluate", **NO_NETWORK)

    assert home.read("dvc.lock") == lock_there
    assert stages_run(done.stdout) == []
    assert home.run("dvc", "status", "evaluate").stdout.endswith("up to date.\n")
