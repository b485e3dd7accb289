"""Finding the ink of a digit in a picture: guesses, of which the network then takes the one most like a digit.

The first guess takes the picture's edge for ground and what differs from it for ink. It is right for drawings and for
digits that are cut out, and wrong where a sheet's edge, a shadow or a box is in the picture. The others look for
strokes: what is narrower than a sheet or a shadow, and has no connection with the picture's edge. The numbers below
were chosen by trial; `python -m benchmarks.pictures` says how well they do.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import reconstruction

from src.reader.picture import frame_of

STROKE = 0.22  # of the picture's shorter side: what is wider is no stroke
MIN_CONTRAST = 10  # grey levels of 255 between ink and ground
NOISE = 5  # standard deviations of the picture's noise above which a pixel may be ink
PHOTO = 64  # pixels: what is smaller is a drawing, without noise
FLAT = 0.5  # of the picture's edge: where so much is of its darkest or lightest grey, that is the ground of a drawing
DARKEST = 0.5  # of the light on the lightest ground: what has less is no paper in a shadow
FAINT = 0.05  # of the ink's level: what is fainter is ground
CONNECTED = 0.1  # of the ink's level: what is connected with it, and not fainter, is ink in a drawing cut out
THINNED = 2.5  # the power that thins the strokes of such a drawing: enlarged from few pixels, they are blurred
RIM = 2  # pixels round the core of the ink that are ink as well, fainter
SPECK = 0.05  # of the ink of the largest piece: what has less is no part of the digit
NEAR = 0.1  # of the picture's shorter side: ink so near to two opposite edges is all there is, cut out
SIDE_LONG = 0.6  # of an edge: what takes more of it is a desk or a shadow, unless it reaches all four
CONTACT = 0.25  # of an edge: a stroke that reaches it touches less of it, a shadow or a desk more
BOX_AREA = 0.02  # of the picture: what is smaller is no box with a digit in it
# How much more a guess must look like a digit than another, in units of the outlier head's score.
FREE, AT_EDGE, STROKES, WIDE = -3.0, -1.5, 1.0, 5.0
ON_FLAT = -6.0
TURNED, RECTANGULAR = 20, 0.88  # degrees either way; of the rectangle round it, what a box fills at least
GAP = 3  # pixels: how far a box's line may be broken
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


class Guess(NamedTuple):
    """What may be the digit's ink.

    Attributes:
        ink: (h, w) float32 in [0, 1], cut out.
        handicap: what its outlier score must make up for.
        dark: whether it is darker than the ground, as far as that is certain.
    """

    ink: np.ndarray
    handicap: float
    dark: bool | None = None


def guess_ground(grey: np.ndarray) -> Guess | None:
    """Guess that the picture's edge is ground, and what differs from it is ink; None where nothing does.

    Args:
        grey: (H, W) float32 in [0, 255], dark on light or light on dark.
    """
    frame = frame_of(grey.shape)
    relief = grey - np.median(grey[frame])
    # The fourth power: ink stands out by more than a shadow does, if in fewer pixels.
    dark = bool((relief.clip(max=0) ** 4).sum() > (relief.clip(min=0) ** 4).sum())
    if dark:
        relief = -relief
    relief -= np.percentile(relief[frame], 25)  # ink may cover a good part of the frame
    floor = _noise_floor(grey)
    core = _core(relief, floor)
    if core is None:
        return None
    ink = _cut_out(relief, core, floor)
    rim = max(RIM, round(NEAR * min(grey.shape)))
    at_edges = [edge.mean() for edge in (core[0], core[-1], core[:, 0], core[:, -1])]  # the share of each edge
    top, bottom, left, right = (edge.any() for edge in (core[:rim], core[-rim:], core[:, :rim], core[:, -rim:]))
    cut_out = ((top and bottom) or (left and right)) and (all((top, bottom, left, right)) or max(at_edges) < SIDE_LONG)
    width = 2 * np.asarray(ndimage.distance_transform_edt(np.pad(core, 1))).max()
    wide = width > STROKE * min(grey.shape)
    if not max(at_edges):
        return Guess(ink, FREE, None if wide else dark)  # a sheet is wide, and what is written on it not of its kind
    if cut_out and _is_flat(grey, dark):
        return Guess(_cut_out_drawing(relief, core, floor), ON_FLAT, dark)
    if cut_out:
        return Guess(ink, FREE)
    return Guess(ink, WIDE if wide or max(at_edges) > CONTACT else AT_EDGE)


def guess_strokes(grey: np.ndarray, dark: bool | None = None) -> Iterator[Guess]:
    """Guess that ink is what is narrow, darker or lighter than what is round it, and free of the picture's edge.

    Args:
        grey: (H, W) float32 in [0, 255].
        dark: whether ink is darker than the ground; None for both. The gaps of a dark letter are light strokes.
    """
    floor, width = _noise_floor(grey), max(3, int(STROKE * min(grey.shape)))
    smooth = ndimage.median_filter(grey, 3)
    for is_dark in (True, False) if dark is None else (dark,):
        if is_dark:
            ground = ndimage.grey_closing(smooth, size=(width, width), mode="nearest")
            # A shadow takes the same share of the light from ink and paper: in it, ink stands out by less.
            light = (ground / max(ground.max(), 1)).clip(min=DARKEST)
            relief = (ground - smooth) / light
        else:
            relief = ndimage.white_tophat(smooth, size=(width, width), mode="nearest")
        relief = (relief - np.median(relief)).clip(min=0)
        free = _without_edge(relief, np.ones(grey.shape, bool))
        core = _core(free, floor)
        if core is None:
            continue
        yield Guess(_cut_out(free, core, floor), STROKES)
        for room in _rooms(core):
            inside = _without_edge(relief, room)
            core = _core(inside, floor)
            if core is not None:
                yield Guess(_cut_out(inside, core, floor), FREE)


def _is_flat(grey: np.ndarray, dark: bool) -> bool:
    """Whether most of the edge has the grey furthest from the ink's, as in a drawing: no photo's ground is so even."""
    edge = grey[frame_of(grey.shape)]
    ground = edge >= grey.max() - 1 if dark else edge <= grey.min() + 1
    return bool(ground.mean() > FLAT)


def _noise_floor(grey: np.ndarray) -> float:
    """The height that noise does not reach, in grey levels."""
    if min(grey.shape) < PHOTO:
        return 1
    deviation = 1.48 * float(np.median(np.abs(grey - ndimage.uniform_filter(grey, 5))))
    return max(NOISE * deviation, 1)


def _without_edge(relief: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Take away from a relief (H, W) whatever reaches the edge of an area (H, W) bool, as high as it does.

    A rule or a shadow that crosses the area goes; ink upon it keeps what it is darker by.
    """
    relief = np.where(area, relief, 0)
    inner = ndimage.binary_erosion(area, EIGHT_NEIGHBOURS)
    return relief - reconstruction(np.where(inner, 0, relief), relief)


def _core(relief: np.ndarray, floor: float) -> np.ndarray | None:
    """Find the ink's core in a relief (H, W), without specks: (H, W) bool, or None where nothing stands out."""
    above = relief[relief > floor]
    if not len(above):
        return None
    threshold = threshold_otsu(above) if np.ptp(above) >= 1 else floor  # levels that differ by less are one
    pieces, count = ndimage.label(relief > threshold, EIGHT_NEIGHBOURS)
    amounts = ndimage.sum_labels(relief, pieces, np.arange(1, count + 1))
    core = np.concatenate([[False], amounts > SPECK * amounts.max()])[pieces]
    return core if np.median(relief[core]) >= max(MIN_CONTRAST, 2 * floor) else None


def _cut_out(relief: np.ndarray, core: np.ndarray, floor: float, level: float | None = None) -> np.ndarray:
    """Cut the ink out of a relief (H, W), its rim included: (h, w) float32 in [0, 1], 1 from ``level`` on."""
    level = level or np.median(relief[core])
    ink = ndimage.binary_dilation(core, EIGHT_NEIGHBOURS, iterations=RIM, mask=relief > max(floor, FAINT * level))
    (box,) = ndimage.find_objects(ink.astype(int))
    return np.where(ink, relief / level, 0)[box].clip(0, 1).astype(np.float32)


def _cut_out_drawing(relief: np.ndarray, core: np.ndarray, floor: float) -> np.ndarray:
    """Cut out a drawing that fills its picture, with all that is connected with its core, as `_cut_out` does.

    Such a picture may be enlarged from few pixels: faint parts are ink, and thick strokes are blurred thin ones.
    """
    level = np.median(relief[core])
    whole = ndimage.binary_propagation(core, EIGHT_NEIGHBOURS, mask=core | (relief > CONNECTED * level))
    return _cut_out(relief, whole, floor, level) ** THINNED


def _rooms(core: np.ndarray) -> list[np.ndarray]:
    """Find the areas that ink (H, W) encloses and that are large enough for a digit in a box: (H, W) bool each."""
    walls = ndimage.binary_closing(np.pad(core, GAP), EIGHT_NEIGHBOURS, iterations=GAP)[GAP:-GAP, GAP:-GAP] | core
    rooms, count = ndimage.label(ndimage.binary_fill_holes(walls) & ~walls)
    found = []
    for number in range(1, count + 1):
        room = ndimage.binary_fill_holes(rooms == number)  # with what stands in it
        if room.sum() > BOX_AREA * core.size and _is_rectangle(room):
            wall = max(2, int(0.02 * np.sqrt(room.sum())))
            found.append(ndimage.binary_erosion(room, EIGHT_NEIGHBOURS, iterations=wall))
    return found


def _is_rectangle(area: np.ndarray) -> bool:
    """Whether an area (H, W) bool fills the rectangle round it, turned a little at most."""
    points = np.argwhere(area & ~ndimage.binary_erosion(area))
    angles = np.radians(np.arange(-TURNED, TURNED + 1))
    y = np.outer(np.cos(angles), points[:, 0]) + np.outer(np.sin(angles), points[:, 1])
    x = np.outer(np.cos(angles), points[:, 1]) - np.outer(np.sin(angles), points[:, 0])
    return area.sum() > RECTANGULAR * ((np.ptp(y, 1) + 1) * (np.ptp(x, 1) + 1)).min()
