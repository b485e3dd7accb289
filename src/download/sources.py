"""Where files may be had, whether they are there already, and where they are kept."""

import contextlib
import hashlib
import os
from pathlib import Path

from src.download.fetch import fetch
from src.pipeline.files import sha256, write_file
from src.pipeline.process import UserError
from src.pipeline.project import project_root


def is_right(path: Path, expected: str) -> bool:
    """Tell whether the file is there and has this SHA-256."""
    return path.is_file() and sha256(path) == expected


def fetch_and_keep(name: str, sources: list[str], size: int, known_hash: str) -> bytes:
    """Do what `fetch` does, once: all runs of this project share what was fetched.

    DVC's stage has in its folders what the last run used. An experiment with ``dataset=sample`` or other weights takes
    the rest away, and to go back then takes no network where this clone has fetched it. Where ``dvc pull`` has brought
    it, ``dvc checkout`` goes back.
    """
    kept = project_root() / ".dvc" / "tmp" / "downloads" / name
    content = fetch(name, [*([str(kept)] if kept.is_file() else []), *sources], size, known_hash)
    if not is_right(kept, hashlib.sha256(content).hexdigest()):
        with contextlib.suppress(UserError):  # it is not needed
            write_file(kept, content, suffix=f".{os.getpid()}")  # two runs of the queue may be at it
    return content


def resolve(path: str) -> Path:
    """Find what a user means by a path: it starts at the project, also where DVC runs an experiment elsewhere.

    Raises:
        UserError: it starts at the home of a user who is unknown.
    """
    try:
        return project_root() / Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such user") from error


def from_environment(variable: str) -> list[str]:
    """List the one source, a URL or a path, that an environment variable names, if any."""
    value = os.environ.get(variable)
    if not value:
        return []
    return [value if "://" in value else str(resolve(value))]
