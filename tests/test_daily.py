"""The README's daily recipes, walked through: experiments, a remote, a second clone, training elsewhere."""

import json
import re

import pytest
from conftest import Project, stages_run

NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
LARGE = ("data/mnist", "models/model.safetensors", "models/model.onnx")  # in DVC's cache, not in Git


def files(project: Project) -> dict[str, bytes]:
    """The large results by name, and the lock."""
    paths = [project.path / "dvc.lock"]
    for name in LARGE:
        paths += [project.path / name, *(project.path / name).glob("*")]
    return {path.relative_to(project.path).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def shown(project: Project, name: str) -> dict:
    """An experiment's entry in ``dvc exp show``."""
    (commit,) = [
        row for row in json.loads(project.run("dvc", "exp", "show", "--json").stdout) if row["rev"] != "workspace"
    ]
    (found,) = [revision for entry in commit["experiments"] for revision in entry["revs"] if revision["name"] == name]
    return found["data"]


@pytest.fixture
def shared(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone where the workflow has run, pushed to a Git server and to a DVC remote, each a folder."""
    folder = tmp_path_factory.mktemp("shared")
    trained.run("git", "init", "-q", "--bare", "-b", "main", str(folder / "origin"))
    trained.run("git", "remote", "add", "origin", str(folder / "origin"))
    trained.run("dvc", "remote", "add", "-d", "storage", str(folder / "storage"))
    trained.commit("a remote")
    assert "files pushed" in trained.run("dvc", "push").stdout
    trained.run("git", "push", "-q", "-u", "origin", "main")
    return trained


@pytest.fixture
def second(shared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A second clone, which knows the first one's remotes alone."""
    project = Project(tmp_path_factory.mktemp("second"))
    project.run("git", "clone", "-q", shared.run("git", "remote", "get-url", "origin").stdout.strip(), ".")
    return project


def test_a_second_clone_that_pulls_needs_no_network_and_trains_nothing(shared, second):
    assert not any((second.path / name).exists() for name in LARGE)
    second.run("dvc", "pull", **NO_NETWORK)
    assert files(second) == files(shared)
    assert "up to date" in second.run("dvc", "repro", **NO_NETWORK).stdout
    assert second.run("git", "status", "--porcelain").stdout == ""


def test_an_experiment_trained_elsewhere_comes_home(shared, second):
    second.run("dvc", "pull")
    done = second.run("dvc", "exp", "run", "-n", "elsewhere", "-S", "epochs=2", **NO_NETWORK)
    assert stages_run(done.stdout) == ["train", "evaluate", "report", "export"]
    second.run("dvc", "exp", "push", "origin", "elsewhere")
    shared.run("dvc", "exp", "pull", "origin", "elsewhere")
    shared.run("dvc", "exp", "apply", "elsewhere")
    assert files(shared) == files(second)
    assert "up to date" in shared.run("dvc", "repro", **NO_NETWORK).stdout


def test_a_grid_is_queued_run_shown_compared_applied_and_branched(trained):
    queued = trained.run("dvc", "exp", "run", "--queue", "-S", "lr=range(0.002,0.008,0.003)").stdout
    names = re.findall(r"Queued experiment '(.+?)'", queued)
    assert len(names) == 2
    trained.run("dvc", "exp", "run", "--run-all")
    rates = [shown(trained, name)["params"]["params.yaml"]["data"]["lr"] for name in names]
    assert rates == [0.002, 0.005]

    trained.run("dvc", "exp", "apply", names[1])
    assert "lr: 0.005" in trained.read("params.yaml")
    assert "up to date" in trained.run("dvc", "repro").stdout
    assert "test.accuracy" in trained.run("dvc", "metrics", "diff", "HEAD").stdout
    assert "lr" in trained.run("dvc", "params", "diff", "HEAD").stdout
    trained.run("dvc", "plots", "diff", "HEAD", "--out", "page")
    assert len(list((trained.path / "page/static").glob("workspace_*.png"))) == 4

    trained.run("dvc", "exp", "branch", names[0], "slower")
    assert "lr: 0.002" in trained.run("git", "show", "slower:params.yaml").stdout
