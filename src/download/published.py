"""MNIST and what was published in its form: four files in the IDX format, from torchvision's sources."""

import gzip

import numpy as np
from torchvision import datasets

from src.download.fetch import fetch_and_keep, from_environment
from src.images.dataset import DIGITS, Images

PUBLISHED = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}


def mirror_variable(dataset: str) -> str:
    """Name the environment variable that may hold a source of one's own, such as ``MNIST_MIRROR``."""
    return f"{dataset.upper()}_MIRROR"


def class_names(dataset: str) -> tuple[str, ...]:
    """Name the classes as torchvision does, but MNIST's by a digit alone."""
    return DIGITS if dataset == "mnist" else tuple(PUBLISHED[dataset].classes)


def fetch_published(dataset: str) -> dict[str, Images]:
    """Fetch the sets ``train`` and ``test``, from the user's own source first.

    Raises:
        FetchError: no source has one of the files.
    """
    source = PUBLISHED[dataset]
    mirrors = [*from_environment(mirror_variable(dataset)), *source.mirrors]
    arrays = []
    for name, md5 in source.resources:  # images and labels for training, images and labels for the test
        urls = [f"{mirror.rstrip('/')}/{name}" for mirror in mirrors]
        arrays.append(read_idx(gzip.decompress(fetch_and_keep(f"{dataset}/{name}", urls, f"md5:{md5}"))))
    sets = {"train": arrays[:2], "test": arrays[2:]}
    return {name: Images(images, labels.astype(np.int64)) for name, (images, labels) in sets.items()}


def read_idx(content: bytes) -> np.ndarray:
    """Read a uint8 array in the IDX format of MNIST's files (http://yann.lecun.com/exdb/mnist/).

    A big-endian header (two zero bytes, the type code 8, the number of dimensions, each dimension in 32 bits), then the
    values in C order.
    """
    values = np.frombuffer(content, np.uint8)
    shape = values[4 : 4 + 4 * values[3]].view(">u4")
    return values[4 + 4 * len(shape) :].reshape(shape)
