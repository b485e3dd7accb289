"""MNIST's images and labels as tensors."""

from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.datasets.mnist import read_image_file, read_label_file

from src.mnist.manifest import MNIST_DIR, Manifest

CLASS_NAMES = tuple("0123456789")
SIDE = 28  # pixels
MEAN, STD = 0.1307, 0.3081  # of MNIST's training images scaled to [0, 1], as PyTorch's own mnist example has them
RAW_DIR = MNIST_DIR / "MNIST" / "raw"  # where torchvision's MNIST("data/mnist") looks


class Images(NamedTuple):
    """Images (N, 28, 28) uint8 and their labels (N,) int64, on one device."""

    images: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> "Images":
        """Copy both to ``device``."""
        return Images(self.images.to(device), self.labels.to(device))


def load_training_images(manifest: Manifest) -> Images:
    """Load the training set, in the published order. Raises `UserError` where a file is not the downloaded one."""
    return _load(manifest, "train")


def load_test_images(manifest: Manifest) -> Images:
    """Load the test set, in the published order. Raises `UserError` where a file is not the downloaded one."""
    return _load(manifest, "t10k")


def mnist_files(split: str) -> tuple[Path, Path]:
    """Name the files of the images and of the labels of ``train`` or ``t10k``."""
    return RAW_DIR / f"{split}-images-idx3-ubyte", RAW_DIR / f"{split}-labels-idx1-ubyte"


def _load(manifest: Manifest, split: str) -> Images:
    images_file, labels_file = mnist_files(split)
    manifest.check(images_file)
    manifest.check(labels_file)
    # Not by torchvision's MNIST itself, which wants all four files and prefers an older version's ``processed`` folder.
    return Images(read_image_file(str(images_file)), read_label_file(str(labels_file)))
