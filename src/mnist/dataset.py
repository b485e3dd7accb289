"""MNIST as NumPy arrays, and ``data/manifest.json``, which says what the ``download`` stage got."""

import lzma
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from src.pipeline.files import read_json, sha256
from src.pipeline.paths import MANIFEST_FILE, MNIST_FILES, WRITERS_FILES
from src.pipeline.process import UserError

CLASS_NAMES = tuple("0123456789")
SIDE = 28  # pixels
MEAN, STD = 0.1307, 0.3081  # of MNIST's training images scaled to [0, 1], as PyTorch's own mnist example has them


class Manifest(BaseModel):
    """The data and the initial weights. Two machines that got the same bytes have the same manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str  # "mnist" or "sample"
    training_images: int = Field(gt=0, le=60_000)
    test_images: int = Field(gt=0, le=10_000)
    validation_split: Literal["writer", "class"]  # what holds out whole writers, or the same share of each class
    initial_weights: str  # "imagenet_cntk", "imagenet1k_v1", "random", or the name of the user's file
    weights_file: Annotated[Path, PlainSerializer(Path.as_posix)] | None  # None where the initial weights are random
    sha256: dict[str, str]  # of each file, by its path

    def check(self, path: Path) -> None:
        """Raise `UserError` unless the file at ``path`` is the one that was downloaded."""
        if not path.is_file() or sha256(path) != self.sha256.get(path.as_posix()):
            raise UserError(f"{path} is not the file that {MANIFEST_FILE} names; run `dvc repro -f download`")


class Images(NamedTuple):
    """Images (N, 28, 28) uint8 and their labels (N,) int64."""

    images: np.ndarray
    labels: np.ndarray


def load_manifest() -> Manifest:
    """Read ``data/manifest.json``. Raises `UserError` where it is missing or damaged."""
    try:
        return Manifest.model_validate(read_json(MANIFEST_FILE))
    except (UserError, ValidationError) as error:
        raise UserError(f"{MANIFEST_FILE} is missing or damaged; run `dvc repro -f download`") from error


def load_images(manifest: Manifest, name: str) -> Images:
    """Load the set ``train`` or ``test`` in the published order.

    Raises `UserError` where a file is not the downloaded one.
    """
    for file in MNIST_FILES[name]:
        manifest.check(file)
    images, labels = map(read_idx, MNIST_FILES[name])
    return Images(images, labels.astype(np.int64))


def load_writers(manifest: Manifest, name: str) -> np.ndarray | None:
    """Load who wrote each image of ``train`` or ``test``, in the published order: (N,) uint16; None where unknown.

    Raises `UserError` where the file is not the one that ``download`` saw.
    """
    if manifest.validation_split == "class":
        return None
    manifest.check(WRITERS_FILES[name])
    return np.frombuffer(lzma.decompress(WRITERS_FILES[name].read_bytes()), "<u2")


def read_idx(path: Path) -> np.ndarray:
    """Read a uint8 array in the IDX format of MNIST's files (http://yann.lecun.com/exdb/mnist/).

    A big-endian header (two zero bytes, the type code 8, the number of dimensions, each dimension in 32 bits), then the
    values in C order.
    """
    content = np.fromfile(path, np.uint8)
    shape = content[4 : 4 + 4 * content[3]].view(">u4")
    return content[4 + 4 * len(shape) :].reshape(shape)
