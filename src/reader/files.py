"""The files that somebody means who names files and folders."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.reader.picture import SUFFIXES


class Finder:
    """Finds pictures by their names, and counts what it passes over in folders.

    Attributes:
        passed_over: how many files were passed over, by the end of their names.
    """

    def __init__(self) -> None:
        self.passed_over: Counter[str] = Counter()

    def find(self, names: Sequence[str]) -> Iterator[Path]:
        """Yield the files that are meant: a folder's pictures, subfolders' included, in the order of their names.

        Hidden files and folders in a folder are left out: what systems and editors put there, such as a Mac's
        ``._5.png``. A folder without pictures is yielded itself.
        """
        for path in map(Path, names):
            if path.is_dir():
                yield from self._in_folder(path) or [path]
            else:
                yield path

    def _in_folder(self, folder: Path) -> list[Path]:
        pictures = []
        for file in sorted(folder.rglob("*")):
            if any(part.startswith(".") for part in file.relative_to(folder).parts) or file.is_dir():
                continue
            if file.suffix.lower() in SUFFIXES:
                pictures.append(file)
            else:
                self.passed_over[file.suffix.lower() or "without a suffix"] += 1
        return pictures

    def report(self) -> None:
        """Say on stderr what was passed over, where anything was."""
        if self.passed_over:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.passed_over.most_common())
            print(f"passed over, by their names no pictures: {kinds}", file=sys.stderr)
