"""What outliers are drawn from and with: digits, fonts, a random generator; lines, curves and a knife."""

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 56  # pixels
FAINT = 0.25  # of full ink: what is fainter is cut off


class Materials(NamedTuple):
    """What outliers are made of."""

    digits: dict[int, np.ndarray]  # (N, 28, 28) uint8 of each class
    fonts: list[ImageFont.FreeTypeFont]
    rng: np.random.Generator

    def digit(self, *classes: int) -> np.ndarray:
        """Take a digit, of one of these classes where any are given: (28, 28) float32 in [0, 1]."""
        images = self.digits[int(self.rng.choice(classes or tuple(self.digits)))]
        return images[self.rng.integers(len(images))].astype(np.float32) / 255

    def whole(self, low: int, high: int) -> int:
        """Draw a whole number from ``low`` to ``high`` - 1."""
        return int(self.rng.integers(low, high))


def load_fonts(*families: str) -> list[ImageFont.FreeTypeFont]:
    """Load those of matplotlib's fonts whose files' names begin so, but for displays: these hold no letters."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    files = sorted(
        file for file in folder.glob("*.ttf") if file.name.startswith(families) and "Display" not in file.name
    )
    return [ImageFont.truetype(file, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC) for file in files]


def line(canvas: Image.Image, points: np.ndarray, width: int) -> None:
    """Draw a line of some width through points (N, 2), round at its ends and joints."""
    brush, joints = ImageDraw.Draw(canvas), [(x, y) for x, y in points.tolist()]
    brush.line(joints, fill=255, width=width)
    for joint in joints:  # a fifth of the time that Pillow's own joints take
        brush.circle(joint, width / 2, fill=255)


def curve(points: np.ndarray) -> np.ndarray:
    """Put a Catmull-Rom spline through points (N, 2): (12 (N - 1), 2)."""
    before, start, end, after = (
        np.pad(points, ((1, 2), (0, 0)), "edge")[shift : shift + len(points)] for shift in range(4)
    )
    t = np.linspace(0, 1, 12, endpoint=False)[:, None, None]
    spline = 2 * start + (end - before) * t + (2 * before - 5 * start + 4 * end - after) * t**2
    spline = (spline + (3 * start - before - 3 * end + after) * t**3) / 2
    return spline.transpose(1, 0, 2)[:-1].reshape(-1, 2)


def cut_out(ink: np.ndarray) -> np.ndarray:
    """Cut the ground off round the ink (h, w), and bring the ink's maximum to 1."""
    ink = ink / ink.max()
    box = np.argwhere(ink > FAINT)
    (top, left), (bottom, right) = box.min(0), box.max(0) + 1
    return np.ascontiguousarray(ink[top:bottom, left:right])
