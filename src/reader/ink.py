"""Finding the ink of a digit in a picture: guesses, of which the network then takes the one most like a digit.

The first guess takes the picture's border for background and what differs from it for ink. It is right for drawings and
for digits that are cut out, and wrong where a sheet's edge, a shadow or a box is in the picture. The others look for
strokes: what is narrower than a sheet or a shadow, and has no connection with the picture's edge. The numbers below
were chosen by trial; `python -m benchmarks.pictures` says how well they do.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import closing, reconstruction

from src.reader.outliers.mnist_style import BOX, crop_to_ink
from src.reader.picture import border_of

PENALTIES = {  # how much more a guess must look like a digit than another, in units of the outlier head's score
    "cut out of a flat background": -6.0,
    "free of the edge": -3.0,
    "at the edge": -1.5,
    "strokes": 1.0,
    "wide": 5.0,
}
STROKE = 0.22  # of the picture's shorter side: what is wider is no stroke
MIN_CONTRAST = 10  # grey levels of 255 between ink and background
NOISE = 5  # standard deviations of the picture's noise above which a pixel may be ink
PHOTO = 64  # pixels: what is smaller is a drawing, without noise
FLAT = 0.5  # of the picture's border: where so much is of its darkest or lightest grey, it is a drawing's background
DARKEST = 0.5  # of the light on the lightest background: what has less is no paper in a shadow
FAINT = 0.05  # of the ink's level: what is fainter is background
CONNECTED = 0.1  # of the ink's level: what is connected with it, and not fainter, is ink in a drawing that is cut out
THINNED = 2.5  # the power that thins the strokes of such a drawing: enlarged from few pixels, they are blurred
MARGIN = 2  # pixels round strong ink that are ink as well, fainter
SPECK = 0.05  # of the ink of the largest piece: what has less does not belong to the digit
NEAR = 0.1  # of the picture's shorter side: ink so near to two opposite edges is all there is
SIDE_LONG = 0.6  # of an edge: what takes more of it is a desk or a shadow, unless it reaches all four
CONTACT = 0.25  # of an edge: a stroke that reaches it touches less of it, a shadow or a desk more
BOX_AREA = 0.02  # of the picture: a smaller box holds no digit
TURNED, RECTANGULAR = 20, 0.88  # degrees either way; of the rectangle round it, what a box fills at least
GAP = 3  # pixels: how far a box's line may be broken
THIN, PEN = 2.0, 2.6  # pixels in MNIST's box: a stroke thinner than 99% of MNIST's is drawn as wide as its median
PART = 0.15  # of all ink: what has less is not a digit of its own
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


class Guess(NamedTuple):
    """What may be the digit's ink."""

    ink: np.ndarray  # (h, w) float32 in [0, 1], cropped
    penalty: float  # what its outlier score must make up for
    dark: bool | None = None  # whether it is darker than the background, as far as that is certain


def ink_from_border(grey: np.ndarray) -> Guess | None:
    """Guess that the picture's border is background, and what differs from it is ink; None where nothing does.

    Args:
        grey: (H, W) float32 in [0, 255], dark on light or light on dark.
    """
    border = border_of(grey.shape)
    contrast = grey - np.median(grey[border])
    # The fourth power: ink stands out by more than a shadow does, if in fewer pixels.
    dark = bool((contrast.clip(max=0) ** 4).sum() > (contrast.clip(min=0) ** 4).sum())
    if dark:
        contrast = -contrast
    contrast -= np.percentile(contrast[border], 25)  # ink may cover a good part of the border
    floor = _noise_floor(grey)
    strong = _strong_ink(contrast, floor)
    if strong is None:
        return None
    width = 2 * np.asarray(ndimage.distance_transform_edt(np.pad(strong, 1))).max()
    wide = width > STROKE * min(grey.shape)
    contact = max(edge.mean() for edge in (strong[0], strong[-1], strong[:, 0], strong[:, -1]))
    if not contact:  # a sheet is wide, and what is written on it may be lighter or darker
        return Guess(_ink(contrast, strong, floor), PENALTIES["free of the edge"], None if wide else dark)
    if _fills_picture(strong, contact):
        extreme = grey.max() - 1 <= grey if dark else grey <= grey.min() + 1
        if extreme[border].mean() > FLAT:  # no photo's background is so even
            return Guess(_ink_of_drawing(contrast, strong, floor), PENALTIES["cut out of a flat background"], dark)
        return Guess(_ink(contrast, strong, floor), PENALTIES["free of the edge"])
    kind = "wide" if wide or contact > CONTACT else "at the edge"
    return Guess(_ink(contrast, strong, floor), PENALTIES[kind])


def ink_from_strokes(grey: np.ndarray, dark: bool | None = None) -> Iterator[Guess]:
    """Guess that ink is what is narrow, darker or lighter than what is round it, and free of the picture's edge.

    Args:
        grey: (H, W) float32 in [0, 255].
        dark: whether ink is darker than the background; None for both. The gaps of a dark letter are light strokes.
    """
    floor, width = _noise_floor(grey), max(3, int(STROKE * min(grey.shape)))
    smooth = ndimage.median_filter(grey, 3)
    for is_dark in (True, False) if dark is None else (dark,):
        if is_dark:
            background = ndimage.grey_closing(smooth, size=(width, width), mode="nearest")
            # A shadow takes the same share of the light from ink and paper: in it, ink stands out by less.
            light = (background / max(background.max(), 1)).clip(min=DARKEST)
            contrast = (background - smooth) / light
        else:
            contrast = ndimage.white_tophat(smooth, size=(width, width), mode="nearest")
        contrast = (contrast - np.median(contrast)).clip(min=0)
        free = _without_edge(contrast, np.ones(grey.shape, bool))
        strong = _strong_ink(free, floor)
        if strong is None:
            continue
        yield Guess(_ink(free, strong, floor), PENALTIES["strokes"])
        for box in _printed_boxes(strong):
            inside = _without_edge(contrast, box)
            strong = _strong_ink(inside, floor)
            if strong is not None:
                yield Guess(_ink(inside, strong, floor), PENALTIES["free of the edge"])


def thicken(ink: np.ndarray) -> np.ndarray:
    """Draw the strokes of a fine pen wider: shrunk to MNIST's box as they are, they would fade.

    Args:
        ink: (h, w) float32 in [0, 1].

    Returns:
        The same, or a larger array.
    """
    stroke = ink >= min(0.5, ink.max() / 2)
    # In a bar w pixels wide, the distances to the background are 1, 2, ... w/2 and back: (w + 2) / 4 in the mean.
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(stroke, 1)))[1:-1, 1:-1]
    width = 4 * depth[stroke].mean() - 2
    box_pixel = max(ink.shape) / BOX
    if width >= THIN * box_pixel:
        return ink
    growth = (PEN * box_pixel - width) / 2
    ink, stroke = (np.pad(array, int(growth) + 1) for array in (ink, stroke))
    distance = np.asarray(ndimage.distance_transform_edt(~stroke))
    return np.maximum(ink, growth + 1 - distance).clip(0, 1).astype(np.float32)


def split(ink: np.ndarray) -> list[np.ndarray]:
    """Split ink (h, w) where digits could stand side by side: its pieces, or the halves of what is wider than high.

    Returns:
        The parts, cropped, from left to right; nothing where ink can't be split.
    """
    strokes = np.where(ink > 0.3, ink, 0)
    pieces = regionprops(label(strokes > 0), strokes)
    boxes = [piece.slice for piece in pieces if piece.image_intensity.sum() > PART * ink.sum()]
    boxes.sort(key=lambda box: box[1].start)
    if len(boxes) > 1 and all(left[1].stop <= right[1].start + 2 for left, right in itertools.pairwise(boxes)):
        return [strokes[box] for box in boxes]
    height, width = ink.shape
    if width < max(3, height):
        return []
    edge = max(1, width // 4)
    cut = edge + int(ink.sum(0)[edge : width - edge].argmin())
    halves = [crop_to_ink(half) for half in (ink[:, :cut], ink[:, cut:]) if half.any()]
    return halves if len(halves) > 1 else []


def _fills_picture(strong: np.ndarray, contact: float) -> bool:
    """Whether ink (H, W) reaches from one edge to the opposite one, as where a digit is cut out; not so a desk."""
    near = max(MARGIN, round(NEAR * min(strong.shape)))
    bands = strong[:near], strong[-near:], strong[:, :near], strong[:, -near:]
    top, bottom, left, right = (bool(band.any()) for band in bands)
    across, down = left and right, top and bottom
    return (across and down) or ((across or down) and contact < SIDE_LONG)


def _noise_floor(grey: np.ndarray) -> float:
    """The contrast that noise does not reach, in grey levels."""
    if min(grey.shape) < PHOTO:
        return 1
    deviation = 1.48 * float(np.median(np.abs(grey - ndimage.uniform_filter(grey, 5))))
    return max(NOISE * deviation, 1)


def _without_edge(contrast: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Take away from contrast (H, W) whatever reaches the edge of an area (H, W) bool, as high as it does.

    A rule or a shadow that crosses the area goes; ink upon it keeps what it is darker by.
    """
    contrast = np.where(area, contrast, 0)
    inner = ndimage.binary_erosion(area, EIGHT_NEIGHBOURS)
    return contrast - reconstruction(np.where(inner, 0, contrast), contrast)


def _strong_ink(contrast: np.ndarray, floor: float) -> np.ndarray | None:
    """Find what is certainly ink, without specks: (H, W) bool, or None where nothing stands out."""
    above = contrast[contrast > floor]
    if not len(above):
        return None
    threshold = threshold_otsu(above) if np.ptp(above) >= 1 else floor  # levels that differ by less are one
    pieces = label(contrast > threshold)
    amounts = np.bincount(pieces.ravel(), (contrast * (pieces > 0)).ravel())
    strong = (amounts > SPECK * amounts.max())[pieces]
    return strong if np.median(contrast[strong]) >= max(MIN_CONTRAST, 2 * floor) else None


def _ink(contrast: np.ndarray, strong: np.ndarray, floor: float, level: float | None = None) -> np.ndarray:
    """Crop the ink out of contrast (H, W), its margin included: (h, w) float32 in [0, 1], 1 from ``level`` on."""
    level = level or np.median(contrast[strong])
    mask = contrast > max(floor, FAINT * level)
    ink = ndimage.binary_dilation(strong, EIGHT_NEIGHBOURS, iterations=MARGIN, mask=mask)
    return crop_to_ink(np.where(ink, contrast / level, 0)).clip(0, 1).astype(np.float32)


def _ink_of_drawing(contrast: np.ndarray, strong: np.ndarray, floor: float) -> np.ndarray:
    """Crop a drawing that fills its picture, with all that is connected with its strong ink, as `_ink` does.

    Such a picture may be enlarged from few pixels: faint parts are ink, and thick strokes are blurred thin ones.
    """
    level = np.median(contrast[strong])
    mask = strong | (contrast > CONNECTED * level)
    whole = ndimage.binary_propagation(strong, EIGHT_NEIGHBOURS, mask=mask)
    return _ink(contrast, whole, floor, level) ** THINNED


def _printed_boxes(strong: np.ndarray) -> list[np.ndarray]:
    """Find the areas inside printed boxes that are large enough for a digit: (H, W) bool each."""
    lines = closing(strong, np.ones((2 * GAP + 1, 2 * GAP + 1)))
    areas = label(ndimage.binary_fill_holes(lines) & ~lines, connectivity=1)
    boxes = []
    for number in range(1, areas.max() + 1):
        area = ndimage.binary_fill_holes(areas == number)  # with what stands in it
        if area.sum() > BOX_AREA * strong.size and _is_rectangle(area):
            border = max(2, int(0.02 * np.sqrt(area.sum())))
            boxes.append(ndimage.binary_erosion(area, EIGHT_NEIGHBOURS, iterations=border))
    return boxes


def _is_rectangle(area: np.ndarray) -> bool:
    """Whether an area (H, W) bool fills the rectangle round it, turned a little at most."""
    outline = np.argwhere(area & ~ndimage.binary_erosion(area)) @ [1j, 1]
    turned = np.outer(np.exp(1j * np.radians(np.arange(-TURNED, TURNED + 1))), outline)
    return area.sum() > RECTANGULAR * ((np.ptp(turned.real, 1) + 1) * (np.ptp(turned.imag, 1) + 1)).min()
