"""``python -m benchmarks.pictures``: how well ``predict.py`` does on pictures that it was not made from.

The pictures are written to a temporary folder, the real command reads them, and ``benchmarks/pictures.json`` says how
many of each kind it got right, and of how many it warned; the terminal gets it as a table. The photos are simulated.
They come in two halves, of different digits with different random numbers: the numbers in src/reader/ink.py were chosen
with the half ``build``, and the half ``report`` is what is reported. Fonts, scikit-learn's digits, letters, faces and
photographs are the same in both.
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

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from benchmarks import no_digits
from benchmarks.scenes import BICUBIC, KINDS
from src.images.dataset import load_images, load_manifest
from src.pipeline.files import write_json
from src.pipeline.paths import MODEL_FILE
from src.pipeline.process import exit_code
from src.reader.head.outlier_head import HEAD_FILE
from src.reader.outliers.drawings import load_fonts

RESULTS_FILE = Path("benchmarks/pictures.json")
FONTS = ("DejaVu", "STIXGeneral", "cmb10", "cmr10", "cmss10", "cmtt10")  # of matplotlib's
Picture = tuple[Image.Image, int | None]  # and the digit in it, if there is one


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description="Measure predict.py.")
    parser.add_argument("--photos", type=int, default=500, metavar="N", help="of each kind (default: %(default)s)")
    parser.add_argument("--half", choices=["build", "report"], default="report", help="default: %(default)s")
    arguments = parser.parse_args()
    test = load_images(load_manifest(), "test")
    images, labels = test.images, test.labels
    if not 0 < arguments.photos <= len(images) // 2:
        parser.error(f"--photos {arguments.photos}: must be from 1 to {len(images) // 2}, a half of the test set")
    half = slice(arguments.photos) if arguments.half == "build" else slice(-arguments.photos, None)
    some = list(zip(images[half], labels[half].tolist(), strict=True))
    rng = np.random.default_rng(arguments.half == "report")
    digits = {
        "MNIST's test images, PNG": ("png", mnist(images, labels)),
        "the same, dark on light, JPEG": ("jpg", mnist(255 - images, labels)),
        "scikit-learn's digits, enlarged": ("png", enlarged_digits()),
        "fonts": ("png", printed()),
        "fonts, light on dark": ("png", printed(ink=255, background=0)),
        "fonts, turned by up to 12 degrees": ("png", printed(rng=rng)),
        "fonts, in a wide margin": ("png", printed(margin=4)),
    }
    digits |= {f"scenes: {kind}": ("png", scenes(kind, some, rng)) for kind in KINDS}
    none = {kind: ("png", ((picture, None) for picture in make(some, rng))) for kind, make in no_digits.KINDS.items()}
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
    results = {"model_md5": md5(MODEL_FILE), "outlier_head_md5": md5(HEAD_FILE), "kinds": kinds}
    if arguments.half == "report":
        write_json(RESULTS_FILE, results)
    print("\n".join(table(results)))


def md5(file: Path) -> str:
    """As DVC has it."""
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def table(results: dict) -> list[str]:
    """The results as a Markdown table: what is alike, such as ``scenes: plain paper``, in one row with its worst."""
    groups: dict[str, list[tuple[str, dict]]] = {}
    for kind, counted in results["kinds"].items():
        group, _, name = kind.partition(
            ":" if kind.startswith("scenes") else ", " if kind.startswith("fonts") else "\0"
        )
        groups.setdefault(group, []).append((name.strip(), counted))
    lines = ["| pictures | number | right | warned of |", "|---|---|---|---|"]
    for group, rows in groups.items():
        total = sum(counted["pictures"] for _, counted in rows)
        warned, right = sum(counted["warned of"] for _, counted in rows), "-"
        if all(counted["right"] is not None for _, counted in rows):
            right = f"{sum(counted['right'] for _, counted in rows) / total:.2%}"
            name, worst = min(rows, key=lambda row: row[1]["right"] / row[1]["pictures"])
            if worst["right"] * total < worst["pictures"] * sum(counted["right"] for _, counted in rows):
                right += f" (worst: {name or 'plain'}, {worst['right'] / worst['pictures']:.2%})"
        kinds = f", {len(rows)} kinds" if len(rows) > 1 else ""
        lines.append(f"| {group}{kinds} | {total:,} | {right} | {warned / total:.2%} |")
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
    *, ink: int = 0, background: int = 255, margin: float = 0.6, rng: np.random.Generator | None = None
) -> Iterator[Picture]:
    """Each digit in each font, turned by up to 12 degrees where there is an ``rng``.

    Args:
        ink, background: grey levels.
        margin: the width of the background on all sides together, as a share of the digit's longer side.
    """
    for font in [ImageFont.load_default(200), *(font.font_variant(size=200) for font in load_fonts(*FONTS))]:
        for digit in range(10):
            left, top, right, bottom = font.getbbox(str(digit))
            side = round(max(right - left, bottom - top) * (1 + margin))
            picture = Image.new("L", (side, side), background)
            at = ((side - left - right) / 2, (side - top - bottom) / 2)
            ImageDraw.Draw(picture).text(at, str(digit), fill=ink, font=font)
            yield picture.rotate(rng.uniform(-12, 12) if rng else 0, BICUBIC, fillcolor=background), digit


if __name__ == "__main__":
    sys.exit(exit_code(main))
