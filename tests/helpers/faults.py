"""What goes wrong, done on purpose: signals to a running ``dvc repro``, and a system that takes no large file."""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from helpers.project import Project


def run_without_room(project: Project, stage: str, room: int) -> subprocess.CompletedProcess:
    """Run a stage that can write no file larger than ``room`` bytes."""
    import resource  # which Windows lacks

    return subprocess.run(
        ["python", "-m", f"src.{stage}"],
        cwd=project.path,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )


def disturb(
    project: Project,
    *command: str,
    mark: str,
    number: int,
    wait: Callable[[], None] = lambda: None,
    group: bool = True,
) -> str | None:
    """Run a command and send it a signal.

    Args:
        project: where to run it.
        command: such as ``dvc repro``.
        mark: in a line that is printed before the signal.
        number: of the signal.
        wait: what to wait for between that line and the signal.
        group: whether all its processes get the signal, as from Ctrl-C, or it alone.

    Returns:
        What it printed, None where it was through before the signal came.
    """
    process = project.start(*command)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if mark in line:
            break
    wait()
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, number)
    lines += process.stdout  # to the end of all its processes: each holds the pipe open
    return "".join(lines) if process.wait(timeout=60) else None


def seconds_by_stage(project: Project) -> dict[str, float]:
    """Run ``dvc repro`` to its end; return how long each stage took."""
    process = project.start("dvc", "repro")
    seconds, stage, began = {}, None, 0.0
    for line in process.stdout:
        if found := re.match(r"Running stage '(\w+)'", line):
            stage, began = found[1], time.monotonic()
        elif stage:
            seconds[stage] = time.monotonic() - began
    assert process.wait() == 0
    return seconds


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    """Read all files under these names, files or folders, that are not hidden."""
    found = [path for name in names for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if path.name[0] != "."}


def leftovers(project: Project) -> list[Path]:
    """What no finished run leaves: half-written files and checkpoints."""
    halves = [path for name in ("data", "models", "metrics") for path in (project.path / name).rglob(".*.partial")]
    return halves + list(project.path.glob(".dvc/tmp/checkpoints/*"))
