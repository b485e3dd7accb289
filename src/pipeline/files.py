"""Writing and checking files: nothing half-written ever stands under a final name."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from src.pipeline.errors import UserError


@contextmanager
def atomic_write(path: Path, *, suffix: str = ".partial") -> Iterator[BinaryIO]:
    """Open a hidden file beside ``path``; on a clean exit flush it to disk and rename it to ``path``.

    After an exception the hidden file is gone and whatever stood under ``path`` is untouched. After a kill the hidden
    file is left, under a name that the next write takes again.

    Args:
        path: where the file goes.
        suffix: of the hidden file, for writers that may be at work on one ``path`` at a time.

    Raises:
        UserError: the file can't be written (disk full, no permission).
    """
    partial = path.with_name(f".{path.name}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from error


def replace_folder(source: Path, target: Path) -> None:
    """Put the folder ``source`` in the place of the folder ``target``, which may exist.

    A kill in between leaves no ``target``, or the new one and a hidden copy of the old; never a mixture.

    Raises:
        UserError: it can't be done.
    """
    old = target.with_name(f".{target.name}.old")
    try:
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        source.rename(target)
    except OSError as error:
        raise UserError(f"can't write {target}: {error.strerror or error}") from error
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as indented JSON with a final newline."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def sha256(path: Path) -> str:
    """The SHA-256 of the file at ``path``, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
