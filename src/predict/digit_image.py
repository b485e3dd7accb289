"""From a picture of a digit to MNIST's own form: what its makers did to scanned forms, done to any picture.

Their recipe (http://yann.lecun.com/exdb/mnist/): the digit is fitted into 20 x 20 pixels keeping its proportions, and
put into 28 x 28 so that its centre of mass is in the middle; light ink on a black ground. What comes before is ours:
finding the ink. The numbers below were chosen by trial; `python -m benchmarks.pictures` says how well they do.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

from src.mnist.images import SIDE
from src.predict.picture import frame_of

BOX = 20  # pixels, of the square that the digit is fitted into
MIN_CONTRAST = 10  # grey levels of 255 between ink and ground
NOISE = 5  # standard deviations of the ground above which a pixel may be ink
FAINT = 0.05  # of the ink's level: what is fainter is ground
RIM = 2  # pixels round the core of the ink that are ink as well, fainter
SPECK = 0.05  # of the ink of the largest piece: what has less is no part of the digit
THIN, PEN = 2.0, 2.6  # pixels in the box: a stroke thinner than 99% of MNIST's is drawn as wide as its median
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def to_mnist(grey: np.ndarray) -> np.ndarray:
    """Bring a picture of one digit, dark on light or light on dark, to MNIST's form.

    Args:
        grey: (H, W) float32 in [0, 255].

    Returns:
        (28, 28) uint8, 0 for the ground and 255 for ink.

    Raises:
        ValueError: nothing stands out from the ground.
    """
    ink = thicken(find_ink(grey))
    size = [max(1, round(side * BOX / max(ink.shape))) for side in ink.shape]
    small = np.asarray(Image.fromarray(ink).resize(size[::-1], Image.Resampling.BILINEAR))
    top, left = _start(small.sum(1)), _start(small.sum(0))
    form = np.zeros((SIDE, SIDE), np.uint8)
    form[top : top + size[0], left : left + size[1]] = np.rint(255 * small)
    return form


def find_ink(grey: np.ndarray) -> np.ndarray:
    """The digit's ink, cut out: (h, w) float32 in [0, 1]. Takes and raises what `to_mnist` does."""
    relief, floor = _relief(grey)
    candidates = relief[relief > floor]
    if not len(candidates):
        raise ValueError("an empty picture")
    threshold = _otsu(candidates)
    if np.median(candidates[candidates >= threshold]) < max(MIN_CONTRAST, 2 * floor):
        raise ValueError("an empty picture")
    pieces, count = ndimage.label(relief >= threshold, EIGHT_NEIGHBOURS)
    numbers = np.arange(1, count + 1)
    amounts = ndimage.sum_labels(relief, pieces, numbers)
    at_edge = np.isin(numbers, np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    largest = amounts.argmax()
    kept = amounts > SPECK * amounts[largest]
    if not at_edge[largest]:  # then what is at the edge is no part of the digit
        kept &= ~at_edge
    core = np.concatenate([[False], kept])[pieces]
    level = np.median(relief[core])
    digit = ndimage.binary_dilation(core, EIGHT_NEIGHBOURS, iterations=RIM, mask=relief > max(floor, FAINT * level))
    (box,) = ndimage.find_objects(digit.astype(int))
    return np.where(digit, relief / level, 0)[box].clip(0, 1).astype(np.float32)


def thicken(ink: np.ndarray) -> np.ndarray:
    """Draw the strokes of a fine pen wider: shrunk to `BOX` as they are, they would fade.

    Args:
        ink: (h, w) float32 in [0, 1].

    Returns:
        The same, or a larger array.
    """
    stroke = ink >= 0.5
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


def _relief(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """How far each pixel stands out from the ground, ink upwards, and the height that noise does not reach."""
    frame = frame_of(grey.shape)
    relief = grey - _lighting(grey, frame)
    # The fourth power: ink stands out by more than a shadow does, if in fewer pixels.
    if (relief.clip(max=0) ** 4).sum() > (relief.clip(min=0) ** 4).sum():
        relief = -relief  # dark on light
    # The white top-hat takes away what is wider than half the picture: shadows are, strokes are not.
    window = max(1, max(relief.shape) // 2)
    relief -= ndimage.grey_opening(relief, (window, window))
    # Ink may cover up to half of the frame. Of pure noise, these two lie about one standard deviation apart.
    low, ground = np.percentile(relief[frame], [5, 25])
    return relief - ground, max(NOISE * (ground - low), 1)


def _start(ink: np.ndarray) -> int:
    """Where the digit starts in `SIDE` pixels, so that its centre of mass is the one that MNIST's images have.

    Theirs round to pixel `SIDE` / 2, counted from 0.

    Args:
        ink: (n,), the sum of each row or of each column.
    """
    centre = np.average(np.arange(len(ink)), weights=ink)
    return int(np.clip(round(SIDE / 2 - centre), 0, SIDE - len(ink)))


def _lighting(grey: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The ground's grey at each pixel: the plane with the least absolute deviations from the frame's.

    Least absolute deviations, by reweighted least squares, because a digit or a thumb may reach into the frame.
    """
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in grey.shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y], -1)
    step = 1 + frame.sum() // 500
    samples, values = terms[frame][::step], grey[frame][::step]
    fit, weights = np.zeros(3, np.float32), np.ones_like(values)
    for _ in range(10):
        before, fit = fit, np.linalg.lstsq(samples * weights[:, None], values * weights)[0]
        if np.abs(fit - before).max() < 0.01:
            break
        weights = 1 / np.sqrt(np.maximum(np.abs(values - samples @ fit), 0.5))
    return terms @ fit


def _otsu(values: np.ndarray) -> float:
    """The least of the upper part, where ``values`` part with the greatest variance between the parts (Otsu 1979)."""
    values = np.sort(values)
    if len(values) == 1:
        return values[0]
    below = np.arange(1, len(values))
    sums = values.cumsum(dtype=np.float64)
    difference = sums[:-1] / below - (sums[-1] - sums[:-1]) / below[::-1]
    best = (below * below[::-1] * np.square(difference)).argmax()
    return values[best + 1]
