"""What goes wrong, done on purpose: signals to a running ``dvc repro``, and folders that take no more files."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from helpers.project import Project

FULL, READ_ONLY = "disk full", "read-only folder"
MOUNT = {  # shell commands that make the folder $1 take nothing any more
    # The folder on a file system in memory with room for all that it holds and 8 MB, which the filler beside it takes.
    FULL: 'size=$(($(du -sm "$1" | cut -f1) + 8))m && mkdir memory.tmp && mount -t tmpfs -o size=$size tmpfs memory.tmp'
    ' && cp -a "$1" memory.tmp/folder && mount --bind memory.tmp/folder "$1"'
    " && { cat /dev/zero > memory.tmp/filler 2>/dev/null || true; }",
    READ_ONLY: 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"',
}


def start(project: Project, *command: str) -> subprocess.Popen:
    """Start a command in a process group of its own; what it prints is to be read."""
    return subprocess.Popen(
        command,
        cwd=project.path,
        env=project.environment() | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def heed_ctrl_c() -> None:
    """For a new process: a shell makes what it starts in the background, the tests perhaps, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    process = start(project, *command)
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
    process = start(project, "dvc", "repro")
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


def can_mount(folder: Path) -> bool:
    """Whether this system lets the tests mount in a namespace of their own."""
    (folder / "output").mkdir()
    command = in_namespace(FULL, "output", "true")
    return bool(shutil.which("unshare")) and not subprocess.run(command, cwd=folder, capture_output=True).returncode


def run_with_fault(project: Project, fault: str, folder: str, stage: str) -> tuple[subprocess.CompletedProcess, dict]:
    """Run a stage, which must fail, where ``folder`` takes no more files.

    Returns:
        The command, and the SHA-256 of each file that was in the folder after it, hidden ones included, by its path.
    """
    listing = f'find "{folder}" -type f ! -name .gitignore -exec sha256sum {{}} + 1>&2'
    command = in_namespace(fault, folder, f"{{ python -m src.{stage}; code=$?; {listing}; exit $code; }}")
    done = project.run(*command, ok=False)
    return done, {path: digest for digest, path in re.findall(r"^([0-9a-f]{64})  (.*)$", done.stderr, re.M)}


def in_namespace(fault: str, folder: str, command: str) -> list[str]:
    """Wrap a command so that it runs in a mount namespace of its own, where ``folder`` takes no more files."""
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", f"{MOUNT[fault]} && {command}", "sh", folder]
