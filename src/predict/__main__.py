"""The digits in image files: ``python -m src.predict IMAGE...``, by the trained model. No stage of the workflow."""

from src.pipeline.errors import before_imports, exit_on_user_error, run_and_exit

if __name__ == "__main__":
    before_imports()

import argparse
import io
import itertools
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from src.mnist.images import SIDE
from src.pipeline.machine import set_up_machine
from src.pipeline.results import MODEL_FILE
from src.predict.digit_image import to_mnist
from src.predict.picture import read_grey
from src.resnet.inference import Classifier

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}  # of the files that are read in a folder
STANDARD_INPUT = Path("-")
CHUNK = 500  # files that are read before the model sees them; memory does not grow with their number
RUNNERS_UP = 2
ROW = "{:>5}  {:>11}  {:<19}  {}"


@exit_on_user_error
def main() -> None:
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # a file's name comes out as it is, whatever its encoding
    arguments = parse_arguments()
    classifier = Classifier(arguments.model, set_up_machine("auto", "fp32", threads=0))

    if not arguments.json:
        print(ROW.format("digit", "probability", "runners-up", "file"))
    files, all_read = find_files(arguments.images), True
    while chunk := list(itertools.islice(files, CHUNK)):
        read, digits = read_digits(chunk)
        all_read &= len(read) == len(chunk)
        probabilities = classifier.logits(torch.from_numpy(digits)).softmax(1)
        for file, row in zip(read, probabilities, strict=True):
            ranking = [(int(classifier.class_names[i]), row[i].item()) for i in row.argsort(descending=True)]
            print((as_json if arguments.json else as_row)(file, ranking))
    sys.exit(0 if all_read else 1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m src.predict", description="Say which digit is in each image.")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file; a folder, for all images in it; - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("--model", type=Path, default=MODEL_FILE, metavar="FILE", help="default: %(default)s")
    return parser.parse_args()


def find_files(names: list[str]) -> Iterator[Path]:
    """Yield the files that are meant: a folder's images, subfolders' included, in the order of their names.

    A folder without images is yielded itself.
    """
    for path in map(Path, names):
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) or [path]
        else:
            yield path


def read_digits(files: list[Path]) -> tuple[list[Path], np.ndarray]:
    """Read the digit of each file. A file without one is a line on stderr.

    Returns:
        The files that hold a digit, and these digits in MNIST's form: (N, 28, 28) uint8.
    """
    read, digits = [], []
    for file in files:
        try:
            digits.append(read_digit(file))
            read.append(file)
        except (OSError, ValueError) as error:
            print(f"error: {file}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
    return read, np.array(digits, np.uint8).reshape(-1, SIDE, SIDE)


def read_digit(file: Path) -> np.ndarray:
    """Read the digit in an image file, or in standard input, in MNIST's form: (28, 28) uint8.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no image, or an empty one.
    """
    if file == STANDARD_INPUT:
        return to_mnist(read_grey(io.BytesIO(sys.stdin.buffer.read())))
    if file.is_dir():
        raise ValueError("a folder without images")
    with file.open("rb") as opened:
        return to_mnist(read_grey(opened))


def as_json(file: Path, ranking: list[tuple[int, float]]) -> str:
    """Write one line for one file; ``ranking`` holds (digit, probability), the likeliest first."""
    (digit, probability), *others = ranking[: 1 + RUNNERS_UP]
    runners_up = [{"digit": digit, "probability": probability} for digit, probability in others]
    return json.dumps({"file": str(file), "digit": digit, "probability": probability, "runners_up": runners_up})


def as_row(file: Path, ranking: list[tuple[int, float]]) -> str:
    """Write the same as a line of a table."""
    (digit, probability), *others = ranking[: 1 + RUNNERS_UP]
    runners_up = ", ".join(f"{digit} {probability:.2%}" for digit, probability in others)
    return ROW.format(digit, f"{probability:.2%}", runners_up, file)


if __name__ == "__main__":
    run_and_exit(main)
