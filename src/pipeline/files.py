"""Writing, reading and hashing files. Nothing half-written ever stands under a final name."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.pipeline.process import UserError


def write_file(path: Path, content: bytes, *, suffix: str = ".partial") -> None:
    """Write the whole of a file, as `replace_file` does. Raises `UserError` where it can't be written."""
    with replace_file(path, suffix=suffix) as partial:
        partial.write_bytes(content)


@contextmanager
def replace_file(path: Path, *, suffix: str = ".partial") -> Iterator[Path]:
    """Have a hidden file beside ``path`` written, then flush it to disk and rename it to ``path``.

    After an error the hidden file is gone and whatever stood under ``path`` is untouched. After a kill the hidden file
    is left; the next write with the same ``suffix`` takes its name again.

    Args:
        path: the final name; missing folders are made.
        suffix: of the hidden file, for writers that may be at work on one ``path`` at a time.

    Raises:
        UserError: the file can't be written (disk full, no permission).
    """
    partial = path.with_name(f".{path.name}{suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb+") as file:  # Windows flushes what is open for writing alone
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a file or folder that can't be written into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from error


def write_json(path: Path, value: object) -> None:
    """Write ``value``, whose numbers must be finite, as indented JSON with a final newline."""
    write_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a result in JSON.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged; run `dvc repro`") from error


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys as CSV, the keys as its header. There must be at least one row."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, text.getvalue().encode())


def read_columns(path: Path, parsers: Mapping[str, Callable[[str], Any]]) -> dict[str, list]:
    """Read columns of a CSV or, by its suffix, a TSV file.

    Args:
        path: of the file.
        parsers: what makes a value of a cell, by the column's name in the header.

    Raises:
        UserError: the file or a column is missing, a row is shorter or longer than the header, or a cell is not what it
            should be.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        columns = {name: cells for name, *cells in zip(header, *rows, strict=True)}
        return {name: [parse(cell) for cell in columns[name]] for name, parse in parsers.items()}
    except (OSError, LookupError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is missing or damaged; run `dvc repro`") from error


def sha256(path: Path) -> str:
    """Hash the file at ``path``: the SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
