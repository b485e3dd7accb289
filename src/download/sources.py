"""Where files may be had, and whether they are there already."""

import os
from pathlib import Path

from src.pipeline.dvc import project_root
from src.pipeline.errors import UserError
from src.pipeline.files import sha256


def is_right(path: Path, expected: str) -> bool:
    """Tell whether the file is there and has this SHA-256."""
    return path.is_file() and sha256(path) == expected


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
