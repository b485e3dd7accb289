"""The images as NumPy arrays, and ``data/manifest.json``, which says what the ``download`` stage got."""

import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from src.pipeline.files import read_json, sha256
from src.pipeline.paths import IMAGES_FILES, MANIFEST_FILE, WRITERS_FILES
from src.pipeline.process import UserError

DIGITS = tuple("0123456789")
SIDE = 28  # pixels, of MNIST's images


class Manifest(BaseModel):
    """The data and the initial weights. Two machines that got the same bytes have the same manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str  # "mnist", "sample", "fashion_mnist", "kmnist", or the name of the user's folder
    class_names: tuple[str, ...] = Field(min_length=2)  # what each label stands for
    side: int  # pixels
    mean: float  # of the training images scaled to [0, 1], as is the standard deviation
    std: float
    training_images: int = Field(gt=0)
    test_images: int = Field(gt=0)
    test_split: Literal["published", "folder", "class"]  # of the user's, its test folder or a share of each class
    validation_split: Literal["writer", "class"]  # what holds out whole writers, or the same share of each class
    initial_weights: str  # "imagenet_cntk", "imagenet1k_v1", "random", or the name of the user's file
    weights_file: Annotated[Path, PlainSerializer(Path.as_posix)] | None  # None where the initial weights are random
    sha256: dict[str, str]  # of each file, by its path

    def check(self, path: Path) -> None:
        """Raise `UserError` unless the file at ``path`` is the one that was downloaded."""
        if not path.is_file() or sha256(path) != self.sha256.get(path.as_posix()):
            raise UserError(f"{path} is not the file that {MANIFEST_FILE} names; run `dvc repro -f download`")


@dataclass(frozen=True)
class Images:
    """Images and their labels, which may be a part of a larger array."""

    source: np.ndarray  # (M, S, S) uint8, which may be mapped from a file
    labels: np.ndarray  # (N,) int64
    positions: np.ndarray | None = None  # (N,) int64, of each image in ``source``; None for all of it, in order

    @property
    def images(self) -> np.ndarray:
        """The images in memory, (N, S, S) uint8."""
        return self.source if self.positions is None else self.source[self.positions]


def load_manifest() -> Manifest:
    """Read ``data/manifest.json``. Raises `UserError` where it is missing or damaged."""
    try:
        return Manifest.model_validate(read_json(MANIFEST_FILE))
    except (UserError, ValidationError) as error:
        raise UserError(f"{MANIFEST_FILE} is missing or damaged; run `dvc repro -f download`") from error


def load_images(manifest: Manifest, name: str) -> Images:
    """Map the set ``train`` or ``test``, in the order in which it was published: only what is used is read.

    Raises `UserError` where a file is not the downloaded one.
    """
    for file in IMAGES_FILES[name]:
        manifest.check(file)
    images, labels = IMAGES_FILES[name]
    return Images(np.load(images, mmap_mode="c"), np.load(labels))  # c: PyTorch takes writable arrays


def load_writers(manifest: Manifest, name: str) -> np.ndarray | None:
    """Load who wrote each image of ``train`` or ``test``, in the published order: (N,) uint16; None where unknown.

    Raises `UserError` where the file is not the one that ``download`` saw.
    """
    if manifest.validation_split == "class":
        return None
    manifest.check(WRITERS_FILES[name])
    return np.frombuffer(lzma.decompress(WRITERS_FILES[name].read_bytes()), "<u2")
