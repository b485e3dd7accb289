"""Pictures of the user's own: a folder with a folder for each class, as torchvision's ``ImageFolder`` takes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.download.fetch import resolve
from src.pictures.read import read_picture
from src.pipeline.params import DATASETS
from src.pipeline.process import UserError
from src.sampling.split import hold_out_by_class

MOST_CLASSES = 1000
SYSTEM_FILES = (".DS_Store", "._*", "Thumbs.db", "desktop.ini")  # left by file managers; .dvcignore names them
TEST_SHARE = 0.2  # of each class, where the folder has no test set


class Part(NamedTuple):
    """The pictures of one set, not read yet."""

    files: list[Path]
    labels: np.ndarray  # (N,) int64
    side: int  # pixels

    @property
    def images(self) -> Iterator[np.ndarray]:
        """Read one picture after the other: (side, side) uint8. Raises `UserError` where one can't be read."""
        return (read_picture(file, self.side) for file in self.files)


def find_pictures(path: str, side: int) -> tuple[tuple[str, ...], dict[str, Part], str]:
    """Find the pictures of ``path/train/<class>`` and ``path/test/<class>``, or of ``path/<class>``.

    Returns:
        The names of the classes; the sets ``train`` and ``test``; what the test set is: ``folder`` for one of its own,
        ``class`` for a share of each class that is held out where there is none.

    Raises:
        UserError: a folder is missing or empty, or has the name of a published data set, there are too few classes or
            too many, two of them have one name but for upper and lower case, or the test set has a class that the
            training set lacks.
    """
    folder = resolve(path)
    if folder.name in DATASETS:
        raise UserError(f"{path}: a folder of this name would pass for the published data set; rename it")
    train = folder / "train" if (folder / "train").is_dir() else folder
    class_names = _find_classes(train)
    if not 2 <= len(class_names) <= MOST_CLASSES:
        raise UserError(f"{train} has {len(class_names)} folders of classes; it takes 2 to {MOST_CLASSES:,}")
    files, labels = _find_files(train, class_names, class_names)
    if (test := folder / "test").is_dir() and train != folder:
        known = _find_classes(test)
        if strangers := sorted(set(known) - set(class_names)):
            raise UserError(f"{test / strangers[0]} is a class that {train} lacks")
        parts = {"train": Part(files, labels, side), "test": Part(*_find_files(test, known, class_names), side)}
        return class_names, parts, "folder"
    held_out = hold_out_by_class(labels, round(TEST_SHARE * len(labels)))
    for label, name in enumerate(class_names):
        if len(set(held_out[labels == label])) < 2:
            raise UserError(f"{train / name} has too few pictures to hold out {TEST_SHARE:.0%} of them for the test")
    parts = {
        name: Part([files[i] for i in np.flatnonzero(chosen)], labels[chosen], side)
        for name, chosen in (("train", ~held_out), ("test", held_out))
    }
    return class_names, parts, "class"


def _find_classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    folded: dict[str, str] = {}
    for name in names:
        if other := folded.get(name.casefold()):
            raise UserError(f"{folder / other} and {folder / name} differ by upper and lower case alone")
        folded[name.casefold()] = name
    return tuple(names)


def _find_files(folder: Path, names: tuple[str, ...], class_names: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    files, labels = [], []
    for name in names:
        paths = sorted((folder / name).rglob("[!.]*"))
        found = [path for path in paths if path.is_file() and not any(map(path.match, SYSTEM_FILES))]
        if not found:
            raise UserError(f"{folder / name} has no pictures")
        files += found
        labels += [class_names.index(name)] * len(found)
    return files, np.array(labels, np.int64)
