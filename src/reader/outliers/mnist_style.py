"""An image in MNIST's style: what its makers did to the digits that they had scanned.

Their recipe (http://yann.lecun.com/exdb/mnist/): the digit is fitted into 20 × 20 pixels keeping its proportions, and
put into 28 × 28 so that its centre of mass is in the middle; light ink on a black background.
"""

import numpy as np
from PIL import Image

from src.images.dataset import SIDE

BOX = 20  # pixels, of the square that the digit is fitted into


def to_mnist_style(ink: np.ndarray) -> np.ndarray:
    """Bring ink to MNIST's style.

    Args:
        ink: (h, w) float32 in [0, 1], cropped: its outermost rows and columns hold some.

    Returns:
        (28, 28) uint8, 0 for the background and 255 for ink.
    """
    size = [max(1, round(side * BOX / max(ink.shape))) for side in ink.shape]
    small = np.asarray(Image.fromarray(ink).resize(size[::-1], Image.Resampling.BILINEAR))
    top, left = _start(small.sum(1)), _start(small.sum(0))
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + size[0], left : left + size[1]] = np.rint(255 * small)
    return image


def crop_to_ink(ink: np.ndarray, threshold: float = 0) -> np.ndarray:
    """Crop an array (H, W) to the rows and columns that hold anything above ``threshold``. Something must be."""
    rows, columns = (np.flatnonzero((ink > threshold).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _start(ink: np.ndarray) -> int:
    """Where ink, summed up by rows or columns (n,), starts in `SIDE` pixels to have its centre of mass in the middle.

    In MNIST's images that rounds to pixel `SIDE` / 2, counted from 0.
    """
    centre = np.average(np.arange(len(ink)), weights=ink)
    return int(np.clip(round(SIDE / 2 - centre), 0, SIDE - len(ink)))
