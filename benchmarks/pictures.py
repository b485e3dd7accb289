"""``python -m benchmarks.pictures``: how well ``predict.py`` does on pictures that it was not made from.

The pictures are written to a temporary folder, the real command reads them, and ``benchmarks/pictures.json`` says how
many of each kind it got right, and how many it warned of; the terminal gets it as a table. All of them are made here,
the photos too: nobody has held a camera. The photos come in two halves, of different digits with different random
numbers: the numbers in src/predict/ink.py were chosen with the half ``build``, and the half ``report`` is what is
reported. Fonts, scikit-learn's digits, letters, faces and photographs are the same in both.
"""

import argparse
import collections
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from sklearn.datasets import load_digits

from benchmarks.no_digits import NO_DIGIT
from benchmarks.scenes import BICUBIC, KINDS, marker
from src.mnist.dataset import load_test_images
from src.mnist.dataset import load_manifest
from src.pipeline.files import write_json
from src.pipeline.process import exit_on_user_error
from src.pipeline.paths import MODEL_FILE, OUTLIER_HEAD_FILE

RESULTS_FILE = Path("benchmarks/pictures.json")
FONTS = ("DejaVu", "STIXGeneral", "cmb10", "cmr10", "cmss10", "cmtt10")  # of matplotlib's
WITHOUT_DIGITS = "Display"
Picture = tuple[Image.Image, int | None]  # and the digit in it, if there is one


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description="Measure predict.py.")
    parser.add_argument("--photos", type=int, default=500, metavar="N", help="of each kind (default: %(default)s)")
    parser.add_argument("--half", choices=["build", "report"], default="report", help="default: %(default)s")
    arguments = parser.parse_args()
    images, labels = (tensor.numpy() for tensor in load_test_images(load_manifest()))
    if not 0 < arguments.photos <= len(images) // 2:
        parser.error(
            f"--photos {arguments.photos} is none of 1 to {len(images) // 2}: the halves have no digit in common"
        )
    half = slice(arguments.photos) if arguments.half == "build" else slice(-arguments.photos, None)
    some = list(zip(images[half], labels[half].tolist(), strict=True))
    rng = np.random.default_rng(arguments.half == "report")
    digits = {
        "MNIST's test images, PNG": ("png", mnist(images, labels)),
        "the same, dark on light, JPEG": ("jpg", mnist(255 - images, labels)),
        "scikit-learn's digits, enlarged": ("png", enlarged_digits()),
        "fonts": ("png", printed()),
        "fonts, light on dark": ("png", printed(ink=255, ground=0)),
        "fonts, turned by up to 12 degrees": ("png", printed(rng=rng)),
        "fonts, in a wide margin": ("png", printed(margin=4)),
        "photos of a marker on paper": ("jpg", (photograph(marker(image), digit, rng) for image, digit in some)),
        "photos of a fine pen on paper": ("jpg", (photograph(fine_pen(image), digit, rng) for image, digit in some)),
    }
    digits |= {f"scenes: {kind}": ("png", scenes(kind, some, rng)) for kind in KINDS}
    none = {kind: ("png", ((picture, None) for picture in make(some, rng))) for kind, make in NO_DIGIT.items()}
    with tempfile.TemporaryDirectory() as folder:
        counts = {
            kind: write(Path(folder, str(number)), suffix, pictures)
            for number, (kind, (suffix, pictures)) in enumerate({**digits, **none}.items())
        }
        right, warned = count(folder)
    kinds = {
        kind: {
            "pictures": total,
            "right": right[str(number)] if kind in digits else None,
            "warned of": warned[str(number)],
        }
        for number, (kind, total) in enumerate(counts.items())
    }
    results = {"model_md5": md5(MODEL_FILE), "outlier_head_md5": md5(OUTLIER_HEAD_FILE), "kinds": kinds}
    if arguments.half == "report":
        write_json(RESULTS_FILE, results)
    print("\n".join(table(results)))


def md5(file: Path) -> str:
    """As DVC has it."""
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def table(results: dict) -> list[str]:
    """The results as a Markdown table."""
    lines = ["| pictures | number | right | warned of |", "|---|---|---|---|"]
    for kind, counted in results["kinds"].items():
        total = counted["pictures"]
        right = "-" if counted["right"] is None else f"{counted['right'] / total:.2%}"
        lines.append(f"| {kind} | {total:,} | {right} | {counted['warned of'] / total:.2%} |")
    return lines


def write(folder: Path, suffix: str, pictures: Iterable[Picture]) -> int:
    """Write pictures to ``folder``, each under a name that starts with its digit; say how many there are."""
    folder.mkdir()
    number = 0
    for picture, digit in pictures:
        picture.save(folder / f"{'x' if digit is None else digit}-{number}.{suffix}")
        number += 1
    return number


def count(folder: str) -> tuple[collections.Counter, collections.Counter]:
    """Let predict.py read all pictures; count the right answers and the warnings in each folder of ``folder``."""
    command = [sys.executable, "predict.py", "--json", folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    right, warned = collections.Counter(), collections.Counter()
    for answer in map(json.loads, done.stdout.splitlines()):
        file = Path(answer["file"])
        right[file.parent.name] += file.name[0] == str(answer["digit"])
        warned[file.parent.name] += answer["warning"] is not None
    return right, warned


def mnist(images: np.ndarray, labels: np.ndarray) -> Iterator[Picture]:
    for image, digit in zip(images, labels.tolist(), strict=True):
        yield Image.fromarray(image), digit


def scenes(kind: str, digits: Iterable[tuple[np.ndarray, int]], rng: np.random.Generator) -> Iterator[Picture]:
    """Each digit in a scene of its own."""
    for image, digit in digits:
        yield KINDS[kind](image, rng), digit


def enlarged_digits() -> Iterator[Picture]:
    """The 1,797 digits of 8 x 8 pixels that scikit-learn ships, at 16 times their size."""
    digits = load_digits()
    for image, digit in zip(digits.images, digits.target.tolist(), strict=True):
        yield Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize((128, 128), BICUBIC), digit


def printed(
    *, ink: int = 0, ground: int = 255, margin: float = 0.6, rng: np.random.Generator | None = None
) -> Iterator[Picture]:
    """Each digit in each font, turned by up to 12 degrees where there is an ``rng``.

    Args:
        ink, ground: grey levels.
        margin: the width of the ground on all sides together, as a share of the digit's longer side.
    """
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    files = sorted(
        file for file in folder.glob("*.ttf") if file.name.startswith(FONTS) and WITHOUT_DIGITS not in file.name
    )
    for font in [ImageFont.load_default(200), *(ImageFont.truetype(file, 200) for file in files)]:
        for digit in range(10):
            left, top, right, bottom = font.getbbox(str(digit))
            side = round(max(right - left, bottom - top) * (1 + margin))
            picture = Image.new("L", (side, side), ground)
            at = ((side - left - right) / 2, (side - top - bottom) / 2)
            ImageDraw.Draw(picture).text(at, str(digit), fill=ink, font=font)
            yield picture.rotate(rng.uniform(-12, 12) if rng else 0, BICUBIC, fillcolor=ground), digit


def fine_pen(image: np.ndarray) -> np.ndarray:
    """The same with a pen of 8 pixels along the middle of the strokes, where they have one."""
    depth = ndimage.distance_transform_edt(marker(image))
    middle = (depth >= ndimage.maximum_filter(depth, 5) - 0.5) & (depth > 6)
    return ndimage.distance_transform_edt(~middle) < 4


def photograph(ink: np.ndarray, digit: int, rng: np.random.Generator) -> tuple[Image.Image, int]:
    """A photo of ink (bool) on paper: somewhere on the sheet, turned, unevenly lit, grainy, soft, noisy, JPEG.

    In every second one the edge of a shadow runs across the sheet.
    """
    stroke = Image.fromarray(ink)
    stroke = stroke.crop(stroke.getbbox()).convert("L")
    height, width = int(rng.choice([480, 640, 853])), 640
    stroke.thumbnail((400, int(height * rng.uniform(0.25, 0.7))))
    page = Image.new("L", (width, height))
    page.paste(stroke, (rng.integers(20, width - stroke.width - 20), rng.integers(20, height - stroke.height - 20)))
    ink = np.asarray(page.rotate(rng.uniform(-8, 8), BICUBIC)) / 255
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]

    def across() -> np.ndarray:
        angle = rng.uniform(0, 2 * np.pi)
        return np.cos(angle) * x + np.sin(angle) * y

    light = 1 - rng.uniform(0, 0.35) * (across() + 1) / 2 - rng.uniform(0, 0.15) * (x * x + y * y) / 2
    if rng.random() < 0.5:
        edge = (across() - rng.uniform(-0.6, 0.6)) * rng.uniform(10, 80)
        light *= 1 - rng.uniform(0.1, 0.4) / (1 + np.exp(-edge))
    grain = ndimage.gaussian_filter(rng.normal(size=ink.shape), 1.5)
    paper = rng.uniform(140, 235) + grain * rng.uniform(1, 4) / grain.std()
    seen = ndimage.gaussian_filter(paper * light * (1 - ink * rng.uniform(0.45, 0.9)), rng.uniform(0.5, 2))
    seen += rng.normal(size=ink.shape) * rng.uniform(1, 6)
    tint = rng.uniform(0.9, 1, 3)
    return Image.fromarray((seen[..., None] * tint).clip(0, 255).astype(np.uint8)), digit


if __name__ == "__main__":
    main()
