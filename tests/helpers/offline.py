"""What a command that should use no network asks of it, and what it leaves in its user's home."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.project import Project


def require_offline(project: Project, folder: Path, *command: str) -> None:
    """Run Python with a command in a home of its own: it connects to no network and leaves no file but of fonts.

    Connections are seen where strace works.
    """
    home, trace = folder / "home", folder / "connections"
    home.mkdir()
    variables = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    strace = ("strace", "-f", "--seccomp-bpf", "-e", "trace=connect,sendto", "-o")
    works = shutil.which("strace") and subprocess.run([*strace, os.devnull, "true"], check=False).returncode == 0

    project.run(*((*strace, str(trace)) if works else ()), sys.executable, *command, **variables)

    left = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert left <= {("cache", "matplotlib")}  # its list of fonts
    assert not works or "AF_INET" not in trace.read_text()
