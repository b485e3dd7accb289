"""MNIST as the ``download`` stage leaves it, and as tensors."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from src.mnist.idx import read_idx
from src.mnist.manifest import Manifest, check_file
from src.pipeline.errors import UserError

MNIST_DIR = Path("data/mnist")

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"

CLASS_NAMES = tuple("0123456789")
SIDE = 28  # pixels
MEAN, STD = 0.1307, 0.3081  # of MNIST's training images scaled to [0, 1], as PyTorch's own mnist example has them


class Images(NamedTuple):
    """Images (N, 28, 28) and their labels (N,), both uint8, on one device."""

    images: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> "Images":
        return Images(self.images.to(device), self.labels.to(device))


def load_training_images(manifest: Manifest) -> Images:
    """All images of the training set, in the published order. Raises `UserError` where the files are not sound."""
    return _load(manifest, TRAIN_IMAGES, TRAIN_LABELS, manifest.training_images)


def load_test_images(manifest: Manifest) -> Images:
    """All images of the test set, in the published order. Raises `UserError` where the files are not sound."""
    return _load(manifest, TEST_IMAGES, TEST_LABELS, manifest.test_images)


def split_validation(data: Images, validation_size: float) -> tuple[Images, Images | None]:
    """Part the training set into what is trained on and a stratified validation set.

    The split is fixed: it depends on the data and the size alone, so that runs with different seeds can be compared.

    Args:
        validation_size: the share held out, 0 for none.

    Returns:
        What is trained on, and the validation set or None.

    Raises:
        UserError: the share is too small to hold an image of each class.
    """
    if validation_size == 0:
        return data, None
    indices = np.arange(len(data.labels))
    try:
        train, validation = train_test_split(
            indices, test_size=validation_size, stratify=data.labels.numpy(), random_state=0
        )
    except ValueError as error:
        raise UserError(f"validation_size = {validation_size} is too small for {len(indices)} images") from error
    train, validation = np.sort(train), np.sort(validation)
    return Images(data.images[train], data.labels[train]), Images(data.images[validation], data.labels[validation])


def _load(manifest: Manifest, images_name: str, labels_name: str, count: int) -> Images:
    for name in (images_name, labels_name):
        check_file(manifest, MNIST_DIR / name)
    images = read_idx(MNIST_DIR / images_name, shape=(count, SIDE, SIDE))
    labels = read_idx(MNIST_DIR / labels_name, shape=(count,))
    if labels.max() >= len(CLASS_NAMES):
        raise UserError(f"{MNIST_DIR / labels_name} has the label {labels.max()}; labels are 0 to 9")
    return Images(torch.from_numpy(images), torch.from_numpy(labels))
