"""Temporary clones of the project, in which the tests run its real commands."""

import contextlib
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from helpers.stages import run_module
from src.pipeline.params import Params

ROOT = Path(__file__).resolve().parents[2]
PARTS = (  # what a clone holds; a user may have anything else lying about
    ".ci", ".devcontainer", ".dvc/.gitignore", ".dvc/plots", ".dvcignore", ".gitattributes", ".github", ".gitignore",
    "CITATION.cff", "LICENSE", "Makefile", "README.md", "benchmarks", "cluster", "data/.gitignore", "data/README.md",
    "data/imagenet", "data/own", "data/writers", "docs", "dvc.yaml", "experiments",
    "models/.gitignore", "predict.py", "pyproject.toml", "pytest.ini", "release", "reproductions",
    "requirements-demo.in", "requirements-demo.txt", "requirements-dev.in", "requirements-dev.txt",
    "requirements-search.in", "requirements-search.txt", "requirements.in", "requirements.txt", "search", "src",
    "tests",
)  # fmt: skip
needs_posix = pytest.mark.skipif(
    os.name == "nt", reason="needs make, a shell, signals, or the words of errors as POSIX has them"
)
OURS = ("src", "benchmarks", "experiments", "release", "search")  # packages whose modules are commands
DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"  # without the user's own remotes
QUICK = {  # every parameter, so that what a user makes of params.yaml changes no test
    "dataset": "sample",
    "offline_fallback": True,
    "validation_size": 0.05,
    "network": "resnet18",
    "weights": "imagenet",
    "conv1_init": "sum",
    "image_size": 32,
    "augment": True,
    "max_rotation": 15.0,
    "max_shift": 2.0,
    "max_scaling": 0.15,
    "elastic": 0.8,
    "seed": 0,
    "epochs": 1,
    "batch_size": 256,
    "optimizer": "adam",
    "lr": 0.004,
    "weight_decay": 0.0,
    "schedule": "one_cycle",
    "label_smoothing": 0.0,
    "ema_decay": 0.998,
    "tta": 1,
    "precision": "auto",
    "device": "cpu",  # where the bytes of two runs are promised to be the same
    "threads": 0,
    "checkpoint_minutes": 5,
    "launcher": "python -m",
}


def slow(*values: object) -> object:
    """The values of a test's parameters whose case is part of ``make test-all`` alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


def quick_params(**values: object) -> Params:
    """The tests' parameters, some of them changed."""
    return Params(**QUICK | values)


class Project:
    """A clone of the project in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def environment(self) -> dict[str, str]:
        """The variables for a command in the project: none of the user's own that the workflow looks at."""
        ours = ("MNIST_MIRROR", "GOMP_SPINCOUNT")
        kept = {key: value for key, value in os.environ.items() if key not in ours}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_GLOBAL_CONFIG_DIR": f"{self.path}/no such folder",
            "DVC_SYSTEM_CONFIG_DIR": f"{self.path}/no such folder",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.excludesFile", "GIT_CONFIG_VALUE_0": os.devnull},
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@example.com",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@example.com",
        }

    def run(self, *command: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run a command in the project, without a terminal; check its exit code against ``ok``."""
        env = self.environment() | environment
        match command:
            case "python", "-m", module, *arguments if module.partition(".")[0] in OURS:
                done = run_module(module, tuple(arguments), self.path, env)
            case "dvc", *arguments:
                done = run_module("dvc", tuple(arguments), self.path, env)
            case _:
                done = subprocess.run(
                    command, cwd=self.path, env=env, capture_output=True, text=True, timeout=900, check=False
                )
        assert (done.returncode == 0) is ok, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        """Start a command in the project, in a process group of its own.

        Its output and errors are to be read as lines while it goes on.
        """
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment() | {"PYTHONUNBUFFERED": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_ctrl_c if os.name == "posix" else None,
        )

    def copy(self, path: Path) -> "Project":
        """A copy of the project, with all that lies in it, in another folder."""
        shutil.copytree(self.path, path, dirs_exist_ok=True, symlinks=True, copy_function=link_or_copy)
        return Project(path)

    def set_params(self, **values: object) -> None:
        """Change some parameters in params.yaml."""
        file = self.path / "params.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | values, sort_keys=False))

    def commit(self, message: str) -> None:
        """Commit all that Git does not ignore."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def read(self, name: str) -> str:
        """Read a text file of the project."""
        return (self.path / name).read_text()


class Nobodys(Project):
    """A clone of somebody whom Git does not know. It makes a guess, which DVC does not take."""

    def __init__(self, project: Project) -> None:
        super().__init__(project.path)

    def environment(self) -> dict[str, str]:
        """The variables without a name, and without a home where Git's libraries would look for one."""
        known = super().environment().items()
        kept = {name: value for name, value in known if not name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))}
        return kept | {"HOME": f"{self.path}, its home", "EMAIL": "guessed@example.com"}


def heed_ctrl_c() -> None:
    """For a new process: a shell makes what it starts in the background, the tests perhaps, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def link_or_copy(source: str, target: str) -> None:
    """Copy a file; where it is one of DVC's cache or of Git's objects, which nobody writes to, link it instead."""
    if "/.dvc/cache/files/" in source or "/.git/objects/" in source:
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    shutil.copy2(source, target)


def make_project(path: Path) -> Project:
    """A clone with one commit, uncommitted changes included, with quick parameters and no results."""
    for part in PARTS:
        target = path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
        elif (ROOT / part).exists():
            shutil.copy2(ROOT / part, target)
    (path / ".dvc/config").write_text(DVC_CONFIG)
    (path / "params.yaml").write_text(yaml.safe_dump(QUICK, sort_keys=False))
    project = Project(path)
    project.run("git", "init", "-q", "-b", "main")
    project.commit("start")
    return project


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Project]) -> Project:
    """A project that the first of pytest-xdist's workers makes, while the others that want it wait."""
    folder = factory.getbasetemp()
    file = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / f"{name}.pickle"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            file.write_bytes(pickle.dumps(make(factory.mktemp(name))))
    return pickle.loads(file.read_bytes())


def stages_run(output: str) -> list[str]:
    """The stages that a command of DVC's ran, from what it printed."""
    return re.findall(r"Running stage '(\w+)'", output)
