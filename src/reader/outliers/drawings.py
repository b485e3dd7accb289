"""Drawings in MNIST's style that are not a single digit, for the outlier head to learn from.

Digits side by side, one upon another, put together of two halves or turned round; letters, scribbles and shapes.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.interpolate import CubicSpline

from src.images.dataset import SIDE, Images
from src.reader.outliers.mnist_style import crop_to_ink, to_mnist_style

LETTERS = "AEFHKMNPRTUVWXYadefhkmnprtuvwx"  # without those that somebody may write a digit as: B D G I J L O Q S Z ...
SIGNS = "&#@%+=*$?"
MIRRORED, ROTATED, QUARTER_TURNED = (3, 4, 6, 7, 9), (3, 4, 7), (2, 3, 4, 5, 6, 7, 9)  # digits no longer, then
CANVAS = 112  # pixels, of what is drawn with lines
FONT_SIZE = 56  # pixels
FAINT = 0.25  # of full ink: what is fainter is cropped


class Materials:
    """What the drawings are made of: the images (N, 28, 28) uint8 of each label, fonts of some families, and chance."""

    def __init__(self, data: Images, families: Sequence[str], seed: int) -> None:
        self.digits = {int(label): data.images[data.labels == label] for label in np.unique(data.labels)}
        self.fonts, self.rng = load_fonts(*families), np.random.default_rng(seed)

    def digit(self, *classes: int) -> np.ndarray:
        """Take a digit, of one of these classes where any are given: (28, 28) float32 in [0, 1]."""
        images = self.digits[int(self.rng.choice(classes or tuple(self.digits)))]
        return images[self.rng.integers(len(images))].astype(np.float32) / 255


def load_fonts(*families: str) -> list[ImageFont.FreeTypeFont]:
    """Load those of matplotlib's fonts whose files' names begin so, but for displays: these hold no letters."""
    files = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf"))
    chosen = [file for file in files if file.name.startswith(families) and "Display" not in file.name]
    return [ImageFont.truetype(file, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC) for file in chosen]


def draw(kind: str, count: int, materials: Materials) -> np.ndarray:
    """Draw outliers of one of the `KINDS`: (count, 28, 28) uint8."""
    draw_one, _ = KINDS[kind]
    drawings = (draw_one(materials) for _ in itertools.count())
    inked = (ink for ink in drawings if ink.max() > 0)  # the halves of two digits may hold nothing
    return np.array([to_mnist_style(_cropped(ink)) for ink in itertools.islice(inked, count)])


def _pair(materials: Materials) -> np.ndarray:
    """Two digits side by side, now and then three; they may touch."""
    rng = materials.rng
    parts = [_cropped(materials.digit()) for _ in range(3 if rng.random() < 0.2 else 2)]
    canvas = np.zeros((2 * SIDE, sum(part.shape[1] for part in parts) + 2 * SIDE), np.float32)
    x = SIDE // 2
    for part in parts:
        y = (2 * SIDE - part.shape[0]) // 2 + rng.integers(-4, 5)
        place = canvas[y : y + part.shape[0], x : x + part.shape[1]]
        np.maximum(place, part, out=place)
        x += part.shape[1] + rng.integers(-3, 9)
    return canvas


def _chimera(materials: Materials) -> np.ndarray:
    """The halves of two digits, or both upon each other."""
    one, another = materials.rng.choice(tuple(materials.digits), 2, replace=False)  # of one class it may look right
    digit, other, cut = materials.digit(one).copy(), materials.digit(another), materials.rng.integers(11, 17)
    match materials.rng.integers(3):
        case 0:
            digit[cut:] = other[cut:]
        case 1:
            digit[:, cut:] = other[:, cut:]
        case _:
            digit = np.maximum(digit, other)
    return digit


def _turned(materials: Materials) -> np.ndarray:
    """A digit mirrored, upside down or on its side."""
    match int(materials.rng.integers(4)):
        case 0:
            return materials.digit(*MIRRORED)[:, ::-1]
        case 1:
            return materials.digit(*ROTATED)[::-1, ::-1]
        case side:
            return np.rot90(materials.digit(*QUARTER_TURNED), 2 * int(side) - 5)


def _letter(materials: Materials) -> np.ndarray:
    """A letter or another sign, slanted, stretched and turned."""
    rng, canvas = materials.rng, Image.new("L", (CANVAS, CANVAS))
    font = materials.fonts[rng.integers(len(materials.fonts))]
    sign = (LETTERS + SIGNS)[rng.integers(len(LETTERS + SIGNS))]
    ImageDraw.Draw(canvas).text((CANVAS / 2, CANVAS / 2), sign, fill=255, font=font, anchor="mm")
    angle, slant = np.radians(rng.uniform(-15, 15)), rng.uniform(-0.3, 0.3)
    turn = np.array([[np.cos(angle), np.sin(angle) + slant], [-np.sin(angle), np.cos(angle)]])
    turn /= rng.uniform(0.7, 1.3, 2)
    matrix = np.column_stack([turn, CANVAS / 2 * (1 - turn.sum(1))]).ravel()
    return _ink(canvas.transform(canvas.size, Image.Transform.AFFINE, tuple(matrix), Image.Resampling.BILINEAR))


def _scribble(materials: Materials) -> np.ndarray:
    """Lines from one point to the next, straight or curved; or one that wanders."""
    rng, canvas = materials.rng, Image.new("L", (CANVAS, CANVAS))
    if rng.random() < 0.4:
        angles = rng.normal(0, rng.uniform(0.2, 0.7), rng.integers(20, 120)).cumsum() + rng.uniform(0, 6)
        points = np.stack([np.cos(angles), np.sin(angles)], 1).cumsum(0)
        _line(canvas, 10 + (points - points.min(0)) * ((CANVAS - 20) / np.ptp(points, 0).max()), rng)
        return _ink(canvas)
    for _ in range(rng.integers(1, 4)):
        points = rng.uniform(10, CANVAS - 10, (rng.integers(3, 12), 2))
        if rng.random() < 0.6:
            steps = np.arange(len(points))
            points = CubicSpline(steps, points)(np.linspace(0, steps[-1], 12 * steps[-1]))
        _line(canvas, points, rng)
    return _ink(canvas)


def _pieces(materials: Materials) -> np.ndarray:
    """Blobs and dashes here and there."""
    rng, canvas = materials.rng, Image.new("L", (CANVAS, CANVAS))
    for _ in range(rng.integers(3, 10)):
        x, y = rng.uniform(0, CANVAS - 20, 2)
        if rng.random() < 0.5:
            width, height = rng.uniform(6, 30, 2)
            ImageDraw.Draw(canvas).ellipse((x, y, x + width, y + height), fill=255)
        else:
            _line(canvas, np.array([x, y]) + rng.uniform(-25, 25, (3, 2)), rng)
    return _ink(canvas)


def _boxed(materials: Materials) -> np.ndarray:
    """A digit in a box, as on a form."""
    digit = np.kron(_cropped(materials.digit()), np.ones((3, 3), np.float32))
    left, top, right, bottom = materials.rng.integers(2, 20, 4)
    ink = np.pad(digit, ((top, bottom), (left, right)))
    return np.pad(ink, int(materials.rng.integers(1, 8)), constant_values=1)


def _shape(materials: Materials) -> np.ndarray:
    """What a frame, a sheet's corner or a shadow looks like: polygons, bars, blobs and boxes, some with a digit."""
    rng, canvas = materials.rng, Image.new("L", (CANVAS, CANVAS))
    brush = ImageDraw.Draw(canvas)
    for _ in range(1 if rng.random() < 0.6 else rng.integers(2, 5)):
        (x, y), (width, height) = rng.uniform(0, 0.7, 2) * CANVAS, rng.uniform(0.1, 0.65, 2) * CANVAS
        match rng.integers(3):
            case 0:
                brush.polygon(rng.uniform(0, CANVAS, 2 * rng.integers(3, 6)).tolist(), fill=255)
            case 1:
                brush.ellipse((x, y, x + width, y + height), fill=255)
            case _:
                brush.rectangle((x, y, x + width, y + height), outline=255, width=int(rng.integers(3, 30)))
    left, right = rng.uniform(0.3, 1, 2)
    ink = _ink(canvas.rotate(rng.uniform(-15, 15))) * np.linspace(left, right, CANVAS)
    if rng.random() < 0.5:
        ink = ndimage.gaussian_filter(ink, rng.uniform(0, 5))
    if rng.random() < 0.3:
        y, x = rng.integers(0, CANVAS - 2 * SIDE, 2)
        place = ink[y : y + 2 * SIDE, x : x + 2 * SIDE]
        place[:] = np.abs(place - np.kron(materials.digit(), np.ones((2, 2))))
    return ink


def _line(canvas: Image.Image, points: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a line through points (N, 2) with a pen of some width, round at its ends and joints."""
    brush, joints, width = ImageDraw.Draw(canvas), [(x, y) for x, y in points.tolist()], int(rng.integers(9, 17))
    brush.line(joints, fill=255, width=width)
    for joint in joints:  # a fifth of the time that Pillow's own joints take
        brush.circle(joint, width / 2, fill=255)


def _ink(canvas: Image.Image) -> np.ndarray:
    return np.asarray(canvas, np.float32) / 255


def _cropped(ink: np.ndarray) -> np.ndarray:
    """Bring the maximum of ink (h, w) to 1, and crop it."""
    return crop_to_ink(ink / ink.max(), FAINT).astype(np.float32)


KINDS: dict[str, tuple[Callable[[Materials], np.ndarray], float]] = {  # what draws one; how many to fit to, for a digit
    "pairs": (_pair, 0.2),
    "chimeras": (_chimera, 0.08),
    "turned": (_turned, 0.12),
    "letters": (_letter, 0.45),
    "scribbles": (_scribble, 0.6),
    "pieces": (_pieces, 0.12),
    "boxed": (_boxed, 0.08),
    "shapes": (_shape, 0.12),
}
