"""Pictures that don't show a single digit: letters, pairs, scribbles, faces, photographs, empty sheets.

Made in other ways, and with other fonts, than what the outlier head learns from; the letters are the same.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.data import lfw_subset
from sklearn.datasets import load_sample_images

from benchmarks.scenes import BICUBIC, marker, on_paper, photographed, sheet
from src.reader.outliers.drawings import LETTERS, load_fonts

FONTS = (
    *("STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf"),
    *("cmb10.ttf", "cmr10.ttf", "cmss10.ttf", "cmtt10.ttf"),
)
CROSSINGS = 3  # of a scribble's line with itself, at least: nobody's digit has so many, a looped 8 or 2 has two
Digits = list[tuple[np.ndarray, int]]  # images (28, 28) uint8 with their labels


def letters(digits: Digits, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Each letter in each of some fonts, turned by up to 10 degrees."""
    for font in [ImageFont.load_default(200), *(font.font_variant(size=200) for font in load_fonts(*FONTS))]:
        for letter in LETTERS:
            picture = Image.new("L", (400, 400), 255)
            ImageDraw.Draw(picture).text((200, 200), letter, fill=0, font=font, anchor="mm")
            yield picture.rotate(rng.uniform(-10, 10), BICUBIC, fillcolor=255)


def pairs(digits: Digits, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Two digits side by side, on a sheet."""
    for (left, _), (right, _) in zip(digits, digits[1:] + digits[:1], strict=True):
        parts = [marker(image)[:, 100:460] for image in (left, right)]
        gap = np.zeros((parts[0].shape[0], int(rng.integers(0, 120))), bool)
        page = sheet(np.hstack([parts[0], gap, parts[1]]), rng, share=(0.4, 0.8))
        yield photographed(on_paper(page, rng), rng)


def scribbles(digits: Digits, rng: np.random.Generator) -> Iterator[Image.Image]:
    """A line that wanders, each step turned a little from the one before, and crosses itself thrice at least.

    Lines that cross themselves less are left out, three of four: many are a ring, a hook or a wave, and a reader would
    take them for a 1, a 2, a 5 or a 7.
    """
    for _ in digits:
        page = Image.new("L", (640, 480))
        points = _wandering(rng)
        while _crossings(points) < CROSSINGS:
            points = _wandering(rng)
        points = (points - points.min(0)) / np.ptp(points, 0).max() * rng.uniform(200, 380) + (80, 50)
        line = [(x, y) for x, y in points.tolist()]
        ImageDraw.Draw(page).line(line, fill=255, width=int(rng.integers(5, 14)), joint="curve")
        yield photographed(on_paper(page, rng), rng)


def _wandering(rng: np.random.Generator) -> np.ndarray:
    """160 steps, of one length: (160, 2)."""
    turns = np.cumsum(rng.normal(0, rng.uniform(0.2, 0.6), 160)) + np.cumsum(rng.normal(0, 0.15, 160))
    angles = turns + rng.uniform(0, 6)
    return np.cumsum(np.stack([np.cos(angles), np.sin(angles)], 1), 0)


def _crossings(points: np.ndarray) -> int:
    """How often a line through points (N, 2) crosses itself."""
    starts, ends = points[:-1], points[1:]
    dx, dy = (ends - starts).T[..., None]

    def sides(of: np.ndarray) -> np.ndarray:  # of each step (row) each point (column) lies on
        return np.sign(dx * (of[:, 1] - starts[:, None, 1]) - dy * (of[:, 0] - starts[:, None, 0]))

    parted = sides(starts) * sides(ends) < 0  # by a step's line, another's ends
    return int(np.triu(parted & parted.T, 2).sum())


def faces(digits: Digits, rng: np.random.Generator) -> Iterator[Image.Image]:
    """A hundred faces of Labeled Faces in the Wild, as scikit-image ships them: 25 pixels, enlarged."""
    for face in lfw_subset()[:100]:
        yield Image.fromarray((face * 255).astype(np.uint8)).resize((400, 400), BICUBIC)


def photographs(digits: Digits, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Parts of the two photographs that scikit-learn ships."""
    for image in load_sample_images().images:
        for _ in range(50):
            side = int(rng.integers(100, 400))
            y, x = rng.integers(0, image.shape[0] - side), rng.integers(0, image.shape[1] - side)
            yield Image.fromarray(image[y : y + side, x : x + side])


def empty_sheets(digits: Digits, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Paper, half of it with the edge of a shadow."""
    for number in range(100):
        yield photographed(on_paper(Image.new("L", (640, 480)), rng), rng, shadow=number % 2 == 0)


KINDS: dict[str, Callable[[Digits, np.random.Generator], Iterable[Image.Image]]] = {
    "letters of fonts": letters,
    "two digits side by side": pairs,
    "scribbles": scribbles,
    "faces": faces,
    "photographs": photographs,
    "empty sheets": empty_sheets,
}
