"""Pictures in MNIST's form that are no single digit, to learn from what one is not.

Digits side by side, one upon another, put together of two halves or turned round; letters, scribbles and shapes.
"""

import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from src.mnist.dataset import SIDE
from src.reader.outliers.materials import Materials, curve, cut_out, line
from src.reader.outliers.mnist_style import to_form

LETTERS = "AEFHKMNPRTUVWXYadefhkmnprtuvwx"  # without those that somebody may write a digit as: B D G I J L O Q S Z ...
SIGNS = "&#@%+=*$?"
CANVAS = 112  # pixels, of what is drawn with lines
MIRRORED, ROTATED, QUARTER_TURNED = (3, 4, 6, 7, 9), (3, 4, 7), (2, 3, 4, 5, 6, 7, 9)  # digits that are none then


def draw(kind: str, count: int, materials: Materials) -> np.ndarray:
    """Draw outliers of one of the `KINDS`: (count, 28, 28) uint8."""
    drawn = (KINDS[kind](materials) for _ in itertools.count())
    inked = (ink for ink in drawn if ink.max() > 0)  # the halves of two digits may hold nothing
    return np.array([to_form(cut_out(ink)) for ink in itertools.islice(inked, count)])


def _pair(materials: Materials) -> np.ndarray:
    """Two digits side by side, now and then three; they may touch."""
    parts = [cut_out(materials.digit()) for _ in range(3 if materials.rng.random() < 0.2 else 2)]
    canvas = np.zeros((2 * SIDE, sum(part.shape[1] for part in parts) + 2 * SIDE), np.float32)
    x = SIDE // 2
    for part in parts:
        y = (2 * SIDE - part.shape[0]) // 2 + materials.whole(-4, 5)
        place = canvas[y : y + part.shape[0], x : x + part.shape[1]]
        np.maximum(place, part, out=place)
        x += part.shape[1] + materials.whole(-3, 9)
    return canvas


def _chimera(materials: Materials) -> np.ndarray:
    """The halves of two digits, or both upon each other."""
    one, another = materials.rng.choice(tuple(materials.digits), 2, replace=False)  # of one class it may look right
    digit, other, cut = materials.digit(one).copy(), materials.digit(another), materials.whole(11, 17)
    match materials.whole(0, 3):
        case 0:
            digit[cut:] = other[cut:]
        case 1:
            digit[:, cut:] = other[:, cut:]
        case _:
            digit = np.maximum(digit, other)
    return digit


def _turned(materials: Materials) -> np.ndarray:
    """A digit mirrored, upside down or on its side."""
    match materials.whole(0, 4):
        case 0:
            return materials.digit(*MIRRORED)[:, ::-1]
        case 1:
            return materials.digit(*ROTATED)[::-1, ::-1]
        case side:
            return np.rot90(materials.digit(*QUARTER_TURNED), 2 * side - 5)


def _letter(materials: Materials) -> np.ndarray:
    """A letter or another sign, slanted, stretched and turned."""
    font = materials.fonts[materials.whole(0, len(materials.fonts))]
    canvas = Image.new("L", (CANVAS, CANVAS))
    sign = (LETTERS + SIGNS)[materials.whole(0, len(LETTERS + SIGNS))]
    ImageDraw.Draw(canvas).text((CANVAS / 2, CANVAS / 2), sign, fill=255, font=font, anchor="mm")
    angle, slant = np.radians(materials.rng.uniform(-15, 15)), materials.rng.uniform(-0.3, 0.3)
    stretch = 1 / materials.rng.uniform(0.7, 1.3, 2)
    turn = np.array([[np.cos(angle), np.sin(angle) + slant], [-np.sin(angle), np.cos(angle)]]) * stretch
    offset = CANVAS / 2 * (1 - turn.sum(1))
    matrix = np.column_stack([turn, offset]).ravel()
    warped = canvas.transform(canvas.size, Image.Transform.AFFINE, tuple(matrix), Image.Resampling.BILINEAR)
    return np.asarray(warped, np.float32) / 255


def _scribble(materials: Materials) -> np.ndarray:
    """Lines from one point to the next, straight or curved; or one that wanders."""
    rng, canvas = materials.rng, Image.new("L", (CANVAS, CANVAS))
    if rng.random() < 0.4:
        angles = rng.normal(0, rng.uniform(0.2, 0.7), materials.whole(20, 120)).cumsum() + rng.uniform(0, 6)
        points = np.stack([np.cos(angles), np.sin(angles)], 1).cumsum(0)
        points = 10 + (points - points.min(0)) * ((CANVAS - 20) / np.ptp(points, 0).max())
        line(canvas, points, materials.whole(9, 17))
        return np.asarray(canvas, np.float32) / 255
    for _ in range(materials.whole(1, 4)):
        points = rng.uniform(10, CANVAS - 10, (materials.whole(3, 12), 2))
        line(canvas, curve(points) if rng.random() < 0.6 else points, materials.whole(9, 17))
    return np.asarray(canvas, np.float32) / 255


def _pieces(materials: Materials) -> np.ndarray:
    """Blobs and dashes here and there."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    for _ in range(materials.whole(3, 10)):
        x, y = materials.rng.uniform(0, CANVAS - 20, 2)
        if materials.rng.random() < 0.5:
            width, height = materials.rng.uniform(6, 30, 2)
            ImageDraw.Draw(canvas).ellipse((x, y, x + width, y + height), fill=255)
        else:
            line(canvas, np.array([x, y]) + materials.rng.uniform(-25, 25, (3, 2)), materials.whole(9, 17))
    return np.asarray(canvas, np.float32) / 255


def _boxed(materials: Materials) -> np.ndarray:
    """A digit in a box, as on a form."""
    digit = np.kron(cut_out(materials.digit()), np.ones((3, 3), np.float32))
    left, top, right, bottom, width = (materials.whole(2, 20) for _ in range(5))
    canvas = Image.new("L", (digit.shape[1] + 2 * CANVAS, digit.shape[0] + 2 * CANVAS))
    box = (CANVAS - left, CANVAS - top, CANVAS + digit.shape[1] + right, CANVAS + digit.shape[0] + bottom)
    ImageDraw.Draw(canvas).rectangle(box, outline=255, width=width // 3 + 1)
    ink = np.array(canvas, np.float32) / 255
    ink[CANVAS:-CANVAS, CANVAS:-CANVAS] = np.maximum(ink[CANVAS:-CANVAS, CANVAS:-CANVAS], digit)
    return ink


def _shape(materials: Materials) -> np.ndarray:
    """What a frame, a sheet's corner or a shadow looks like: polygons, bars, blobs and boxes, some with a digit."""
    rng, canvas = materials.rng, Image.new("L", (CANVAS, CANVAS))
    brush = ImageDraw.Draw(canvas)
    for _ in range(1 if rng.random() < 0.6 else materials.whole(2, 5)):
        (x, y), (width, height) = rng.uniform(0, 0.7, 2) * CANVAS, rng.uniform(0.1, 0.65, 2) * CANVAS
        match materials.whole(0, 3):
            case 0:
                corners = rng.uniform(0, CANVAS, (materials.whole(3, 6), 2))
                brush.polygon([(x, y) for x, y in corners.tolist()], fill=255)
            case 1:
                brush.ellipse((x, y, x + width, y + height), fill=255)
            case _:
                brush.rectangle((x, y, x + width, y + height), outline=255, width=materials.whole(3, 30))
    ink = np.asarray(canvas.rotate(rng.uniform(-15, 15)), np.float32) / 255
    left, right = rng.uniform(0.3, 1, 2)
    ink = ink * np.linspace(left, right, CANVAS)
    if rng.random() < 0.5:
        ink = ndimage.gaussian_filter(ink, rng.uniform(0, 5))
    if rng.random() < 0.3:
        digit = np.kron(materials.digit(), np.ones((2, 2)))
        y, x = rng.integers(0, CANVAS - 2 * SIDE, 2)
        place = ink[y : y + 2 * SIDE, x : x + 2 * SIDE]
        place[:] = np.abs(place - digit)
    return ink.astype(np.float32)


KINDS: dict[str, Callable[[Materials], np.ndarray]] = {
    "pairs": _pair,
    "chimeras": _chimera,
    "turned": _turned,
    "letters": _letter,
    "scribbles": _scribble,
    "pieces": _pieces,
    "boxed": _boxed,
    "shapes": _shape,
}
