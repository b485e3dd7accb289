"""Commands in a temporary copy of the project with other parameters, timed."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from src.pipeline.params import PARAMS_FILE
from src.pipeline.process import UserError

ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONUNBUFFERED": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.excludesFile", "GIT_CONFIG_VALUE_0": os.devnull},
    **{f"GIT_{who}_{what}": "bench@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@contextmanager
def project_copy(overrides: Mapping[str, object]) -> Iterator[Path]:
    """Copy the project, its data included, with one commit and no results; have the weights that it asks for there."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, check=True)
        for name in listed.stdout.decode().split("\0"):
            if Path(name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(name, root / name)
        shutil.copytree("data", root / "data", dirs_exist_ok=True)
        params = YAML(typ="safe").load(PARAMS_FILE.read_text(encoding="utf-8"))
        with (root / PARAMS_FILE).open("w", encoding="utf-8") as file:
            YAML().dump(params | {"offline_fallback": False} | dict(overrides), file)
        download = (sys.executable, "-m", "src.download")
        for command in (("git", "init", "-q"), ("git", "add", "-A"), ("git", "commit", "-q", "-m", "start"), download):
            list(run(root, *command))
        yield root


def run(root: Path, *command: str) -> Iterator[tuple[float, str]]:
    """Run a command; yield its lines with the seconds since its start; kill it where nobody wants more of them.

    Raises:
        UserError: it failed. What it says of that is on stderr.
    """
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=root, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                yield time.perf_counter() - start, line
        except GeneratorExit:
            process.kill()
            raise
    if process.returncode != 0:
        raise UserError(f"`{' '.join(command)}` ended with {process.returncode}")


def run_module(root: Path, module: Sequence[str]) -> Iterator[tuple[float, str]]:
    """The same with ``python -m``."""
    return run(root, sys.executable, "-m", *module)
