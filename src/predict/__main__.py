"""The digits in image files: ``python -m src.predict IMAGE...``. No stage of the workflow; it uses the kept model."""

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
from torch import nn

from src.mnist.images import Images
from src.pipeline.errors import UserError, exit_on_user_error
from src.pipeline.machine import Machine, set_up_machine
from src.pipeline.results import MODEL_FILE
from src.predict.digit_image import read_grey, to_mnist
from src.resnet.inference import batch_predictions
from src.resnet.model_file import load_model
from src.resnet.trim import trim

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
    try:
        model, metadata = load_model(arguments.model)
    except ValueError as error:
        raise UserError(f"{error}; run `dvc repro train`") from error
    machine = set_up_machine("auto", "fp32", threads=0)
    model = trim(model, metadata["image_size"]).to(machine.device).to(memory_format=torch.channels_last)

    if not arguments.json:
        print(ROW.format("digit", "probability", "runners-up", "file"))
    files, all_read = find_files(arguments.images), True
    while chunk := list(itertools.islice(files, CHUNK)):
        digits = {}
        for number, file in enumerate(chunk):
            try:
                digits[number] = read_digit(file)
            except (OSError, ValueError) as error:
                all_read = False
                print(f"error: {file}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        if digits:
            probabilities = classify(model, np.stack(list(digits.values())), metadata["image_size"], machine)
            for number, row in zip(digits, probabilities, strict=True):
                ranking = [(int(metadata["class_names"][i]), row[i].item()) for i in row.argsort(descending=True)]
                print((as_json if arguments.json else as_row)(chunk[number], ranking))
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


def read_digit(file: Path) -> np.ndarray:
    """The digit in an image file, or in standard input, in MNIST's form: (28, 28) uint8.

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


def classify(model: nn.Module, digits: np.ndarray, image_size: int, machine: Machine) -> torch.Tensor:
    """The probabilities (N, C) of the classes for digits (N, 28, 28) uint8."""
    data = Images(torch.from_numpy(digits), torch.zeros(len(digits), dtype=torch.uint8))  # the labels are not known
    batches = batch_predictions(model, data.to(machine.device), image_size, machine)
    return torch.cat([logits for logits, _ in batches]).softmax(1).cpu()


def as_json(file: Path, ranking: list[tuple[int, float]]) -> str:
    """One line for one file; ``ranking`` holds (digit, probability), the likeliest first."""
    (digit, probability), *others = ranking[: 1 + RUNNERS_UP]
    runners_up = [{"digit": digit, "probability": probability} for digit, probability in others]
    return json.dumps({"file": str(file), "digit": digit, "probability": probability, "runners_up": runners_up})


def as_row(file: Path, ranking: list[tuple[int, float]]) -> str:
    """The same as a line of a table."""
    (digit, probability), *others = ranking[: 1 + RUNNERS_UP]
    runners_up = ", ".join(f"{digit} {probability:.2%}" for digit, probability in others)
    return ROW.format(digit, f"{probability:.2%}", runners_up, file)


if __name__ == "__main__":
    main()
