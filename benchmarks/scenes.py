"""Simulated photos of a digit: what people write on, where they lay it, how they hold the camera.

Each is drawn from random numbers: size, angle (up to 15 degrees either way), strength, paper, light and noise.
`KINDS` names the scenes.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

BICUBIC = Image.Resampling.BICUBIC
CAPTIONS = ("Fig. 3: a digit", "Name: A. Smith", "page 12", "Answer no. 7", "2026-11-25", "total (EUR)")
SHARP = 20  # pixels of a stroke's drawing for one pixel of MNIST's


def marker(image: np.ndarray) -> np.ndarray:
    """An image of MNIST (28, 28) as if drawn with a thick pen: (560, 560) bool."""
    return np.asarray(Image.fromarray(image).resize((28 * SHARP, 28 * SHARP), BICUBIC)) > 127


def thin_pen(image: np.ndarray) -> np.ndarray:
    """The same with a thin pen: the middle of the strokes, without gaps."""
    depth = ndimage.distance_transform_edt(marker(image))
    return depth > np.maximum(0.8 * ndimage.maximum_filter(depth, 31), 3)


def sheet(ink: np.ndarray, rng: np.random.Generator, *, share: tuple[float, float] = (0.25, 0.6)) -> Image.Image:
    """Ink (bool) somewhere on a sheet, turned a little: "L", 255 for ink, 480 to 900 pixels a side."""
    stroke = Image.fromarray(ink)
    stroke = stroke.crop(stroke.getbbox()).convert("L")
    width, height = (int(rng.integers(480, 900)) for _ in range(2))
    side = round(min(width, height) * rng.uniform(*share))
    stroke.thumbnail((side, side))
    stroke = stroke.rotate(rng.uniform(-8, 8), BICUBIC, expand=True)
    page = Image.new("L", (width, height))
    free = [whole - part for whole, part in zip(page.size, stroke.size, strict=True)]
    x, y = (int(rng.uniform(0.15, 0.85) * space) for space in free)
    page.paste(stroke, (x, y))
    return page


def ruled(page: Image.Image, rng: np.random.Generator, *, squared: bool = False) -> Image.Image:
    """Rules, or squares, as grey levels of ink."""
    rules = Image.new("L", page.size)
    draw = ImageDraw.Draw(rules)
    distance, width = int(rng.integers(28, 60)), int(rng.integers(1, 3))
    level = int(255 * rng.uniform(0.12, 0.35))
    first = int(rng.integers(0, distance))
    for y in range(first, page.height, distance):
        draw.line([(0, y), (page.width, y)], fill=level, width=width)
    for x in range(first, page.width, distance) if squared else ():
        draw.line([(x, 0), (x, page.height)], fill=level, width=width)
    return Image.fromarray(np.maximum(np.asarray(page), np.asarray(rules)))


def boxed(page: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A box round the digit, as on a form, at times with its neighbours."""
    left, top, right, bottom = page.getbbox()
    side = max(right - left, bottom - top)
    gap = [int(side * rng.uniform(0.06, 0.5)) for _ in range(4)]
    box = [left - gap[0], top - gap[1], right + gap[2], bottom + gap[3]]
    width = int(rng.integers(2, 7))
    level = int(255 * rng.uniform(0.4, 1))
    draw = ImageDraw.Draw(page)
    draw.rectangle(box, outline=level, width=width)
    if rng.random() < 0.3:
        step = box[2] - box[0] - width
        for shift in (-step, step):
            draw.rectangle([box[0] + shift, box[1], box[2] + shift, box[3]], outline=level, width=width)
    return page


def captioned(page: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A line of print above or below the digit."""
    _, top, _, bottom = page.getbbox()
    size = int(rng.integers(14, 26))
    text = str(rng.choice(CAPTIONS))
    free = [y for y in (top - 2 * size, bottom + size) if 0 <= y <= page.height - 1.3 * size]
    y = int(rng.choice(free or [0]))
    at = (int(rng.integers(10, page.width // 2)), y)
    ImageDraw.Draw(page).text(at, text, fill=230, font=ImageFont.load_default(size))
    return page


def on_paper(page: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Ink on paper with its grain: (H, W) float, grey levels."""
    ink = np.asarray(page) / 255
    grain = ndimage.gaussian_filter(rng.normal(size=ink.shape), 1.5)
    paper = rng.uniform(150, 240) + grain * rng.uniform(1, 4) / grain.std()
    return paper * (1 - ink * rng.uniform(0.55, 0.92))


def on_board(page: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Chalk on a board."""
    ink = np.asarray(page) / 255
    board = rng.uniform(25, 80) + rng.normal(size=ink.shape) * 3
    return board + ink * rng.uniform(0.6, 0.95) * (255 - board)


def on_desk(grey: np.ndarray, rng: np.random.Generator, *, sides: int) -> np.ndarray:
    """The sheet lying on a desk that is seen on 1 to 4 of its sides, turned by up to 15 degrees."""
    sheet_, angle = Image.fromarray(grey.astype(np.float32)), rng.uniform(-15, 15)
    mask = Image.new("L", sheet_.size, 255)
    turned, inside = (image.rotate(angle, BICUBIC, expand=True) for image in (sheet_, mask))
    margins = [0.0] * 4
    for edge in rng.permutation(4)[:sides]:
        margins[edge] = rng.uniform(0.05, 0.3) * min(sheet_.size)
    left, top, right, bottom = (int(margin) for margin in margins)
    size = (turned.width + left + right, turned.height + top + bottom)
    level = rng.uniform(20, 110) if grey.mean() > 128 else rng.uniform(150, 235)
    grain = ndimage.gaussian_filter(rng.normal(size=size[::-1]), (0.7, rng.uniform(1, 12)))
    desk = level + grain * rng.uniform(1, 8) / grain.std()
    scene = Image.fromarray(desk.astype(np.float32))
    scene.paste(turned, (left, top), inside)
    # On the sides where no desk is to be seen, the camera is nearer than the turned sheet's corners.
    lean = abs(np.sin(np.radians(angle))) / 2
    slack_x = (turned.width - grey.shape[1]) / 2 + lean * grey.shape[0]
    slack_y = (turned.height - grey.shape[0]) / 2 + lean * grey.shape[1]
    seen = (
        0 if left else slack_x,
        0 if top else slack_y,
        scene.width - (0 if right else slack_x),
        scene.height - (0 if bottom else slack_y),
    )
    return np.asarray(scene.crop(tuple(map(int, seen))))


def photographed(grey: np.ndarray, rng: np.random.Generator, *, shadow: bool = False) -> Image.Image:
    """The light, the lens and the sensor: uneven, soft, noisy."""
    y, x = np.mgrid[-1 : 1 : grey.shape[0] * 1j, -1 : 1 : grey.shape[1] * 1j]

    def across() -> np.ndarray:
        angle = rng.uniform(0, 2 * np.pi)
        return np.cos(angle) * x + np.sin(angle) * y

    light = 1 - rng.uniform(0, 0.3) * (across() + 1) / 2 - rng.uniform(0, 0.12) * (x * x + y * y) / 2
    if shadow:
        edge = (across() - rng.uniform(-0.5, 0.5)) * rng.uniform(8, 80)
        light = light * (1 - rng.uniform(0.15, 0.5) / (1 + np.exp(-edge)))
    seen = ndimage.gaussian_filter(grey * light, rng.uniform(0.4, 1.6))
    seen = seen + rng.normal(size=grey.shape) * rng.uniform(0.5, 5)
    tint = rng.uniform(0.92, 1, 3)
    return Image.fromarray((seen[..., None] * tint).clip(0, 255).astype(np.uint8))


def tight(image: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Cut out right at the ink, dark on light, at any size."""
    rows, columns = (np.flatnonzero(image.max(axis) > 50) for axis in (1, 0))
    cut = Image.fromarray(255 - image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = rng.choice([1, 1, 2, 5, 12])
    return cut.resize((cut.width * scale, cut.height * scale), BICUBIC)


def touching(page: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut so that the ink touches one or two of the picture's edges."""
    left, top, right, bottom = page.getbbox()
    crop = [
        int(rng.uniform(0, 0.9) * left),
        int(rng.uniform(0, 0.9) * top),
        right + int(rng.uniform(0.1, 1) * (page.width - right)),
        bottom + int(rng.uniform(0.1, 1) * (page.height - bottom)),
    ]
    for edge in rng.permutation(4)[: int(rng.integers(1, 3))]:
        crop[edge] = page.getbbox()[edge] + (2 if edge < 2 else -2)
    return page.crop(tuple(crop))


def drawn(image: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A digit on a sheet, three times in ten with a thin pen."""
    return sheet(thin_pen(image) if rng.random() < 0.3 else marker(image), rng)


def thick(image: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A digit on a sheet, drawn with a thicker marker."""
    return sheet(ndimage.binary_dilation(marker(image), iterations=int(rng.integers(4, 16))), rng)


def lying(grey: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A sheet or a board of which some sides are in the picture."""
    return photographed(on_desk(grey, rng, sides=int(rng.integers(1, 5))), rng, shadow=rng.random() < 0.2)


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], Image.Image]] = {
    "plain paper": lambda image, c: photographed(on_paper(drawn(image, c), c), c),
    "ruled paper": lambda image, c: photographed(on_paper(ruled(drawn(image, c), c), c), c),
    "squared paper": lambda image, c: photographed(on_paper(ruled(drawn(image, c), c, squared=True), c), c),
    "half in shadow": lambda image, c: photographed(on_paper(drawn(image, c), c), c, shadow=True),
    "with a caption": lambda image, c: photographed(on_paper(captioned(drawn(image, c), c), c), c),
    "in a box": lambda image, c: photographed(on_paper(boxed(sheet(marker(image), c), c), c), c),
    "a sheet on a desk": lambda image, c: lying(on_paper(drawn(image, c), c), c),
    "chalk on a board": lambda image, c: photographed(on_board(sheet(marker(image), c), c), c),
    "a board on a wall": lambda image, c: lying(on_board(sheet(marker(image), c), c), c),
    "a thin pen": lambda image, c: photographed(on_paper(sheet(thin_pen(image), c), c), c, shadow=c.random() < 0.5),
    "a thick marker": lambda image, c: photographed(on_paper(thick(image, c), c), c),
    "touching the edge": lambda image, c: photographed(on_paper(touching(drawn(image, c), c), c), c),
    "cut out at the ink": tight,
}
