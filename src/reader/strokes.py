"""What is done to ink before it goes into MNIST's form: a fine pen drawn wider, digits side by side parted."""

import itertools

import numpy as np
from scipy import ndimage

from src.reader.outliers.mnist_style import BOX

THIN, PEN = 2.0, 2.6  # pixels in the box: a stroke thinner than 99% of MNIST's is drawn as wide as its median
PART = 0.15  # of all ink: what has less is no digit of its own
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def thicken(ink: np.ndarray) -> np.ndarray:
    """Draw the strokes of a fine pen wider: shrunk to `BOX` as they are, they would fade.

    Args:
        ink: (h, w) float32 in [0, 1].

    Returns:
        The same, or a larger array.
    """
    stroke = ink >= min(0.5, ink.max() / 2)
    # In a bar w pixels wide, the distances to the ground are 1, 2, ... w/2 and back: (w + 2) / 4 in the mean.
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(stroke, 1)))[1:-1, 1:-1]
    width = 4 * depth[stroke].mean() - 2
    box_pixel = max(ink.shape) / BOX
    if width >= THIN * box_pixel:
        return ink
    growth = (PEN * box_pixel - width) / 2
    ink, stroke = (np.pad(array, int(growth) + 1) for array in (ink, stroke))
    distance = np.asarray(ndimage.distance_transform_edt(~stroke))
    return np.maximum(ink, growth + 1 - distance).clip(0, 1).astype(np.float32)


def part(ink: np.ndarray) -> list[np.ndarray]:
    """Part ink (h, w) where one could stand beside another: its pieces, or the halves of what is wider than high.

    Returns:
        The parts, cut out, from left to right; one alone where there is nothing to part.
    """
    pieces, count = ndimage.label(ink > 0.3, EIGHT_NEIGHBOURS)
    amounts = ndimage.sum_labels(ink, pieces, np.arange(1, count + 1))
    boxes = [
        box for box, amount in zip(ndimage.find_objects(pieces), amounts, strict=True) if amount > PART * ink.sum()
    ]
    boxes = sorted(boxes, key=lambda box: box[1].start)
    if len(boxes) > 1 and all(left[1].stop <= right[1].start + 2 for left, right in itertools.pairwise(boxes)):
        return [np.where(pieces[box] > 0, ink[box], 0) for box in boxes]
    height, width = ink.shape
    if width < max(3, height):
        return [ink]
    edge = max(1, width // 4)
    cut = edge + int(ink.sum(0)[edge : width - edge].argmin())
    halves = ink[:, :cut], ink[:, cut:]
    return [_cut_out(half) for half in halves if half.any()]


def _cut_out(ink: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(ink.max(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
