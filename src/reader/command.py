"""The digits in image files: ``predict.py IMAGE...``, by the trained model. Not a stage of a workflow."""

import argparse
import io
import itertools
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from src.pipeline.paths import MODEL_FILE
from src.pipeline.process import UserError
from src.pipeline.project import ROOT
from src.reader.export.onnx_classifier import ONNX_FILE
from src.reader.head.outlier_head import HEAD_FILE
from src.reader.picture import SUFFIXES, find_pictures, read_grey
from src.reader.recognise import Reading, load_classifier, recognise
from src.resnet.machine import set_up_machine

STANDARD_INPUT = Path("-")
CHUNK = 100  # files that are read before the model sees them; memory does not grow with their number
RUNNERS_UP = 2
UNREADABLE, WARNED = 1, 3  # exit statuses; 2 is argparse's
ROW = "{:>5}  {:>11}  {:<19}  {}"


def main() -> None:
    set_up_streams()
    arguments = parse_arguments()
    if arguments.model is None and not (ROOT / HEAD_FILE).exists():
        raise UserError("there is no reader of pictures yet; run `make reader`")
    classifier = load_classifier(arguments.model or ROOT / MODEL_FILE, set_up_machine("cpu", "fp32", threads=0))

    if not arguments.json:
        print(ROW.format("digit", "probability", "runners-up", "file"))
    passed_over: Counter[str] = Counter()
    all_read, all_sure = True, True
    files = find_pictures(arguments.images, passed_over)
    while chunk := list(itertools.islice(files, CHUNK)):
        read, pictures = read_pictures(chunk)
        all_read &= len(read) == len(chunk)
        for file, reading in zip(read, recognise(pictures, classifier, arguments.tta), strict=True):
            all_sure &= reading.warning is None
            ranking = rank(reading, classifier.class_names)
            print((as_json if arguments.json else as_row)(file, ranking, reading.warning))
    if passed_over:
        kinds = ", ".join(f"{count} {kind}" for kind, count in passed_over.most_common())
        print(f"passed over, not pictures by their names: {kinds}", file=sys.stderr)
    sys.exit(UNREADABLE if not all_read else WARNED if arguments.strict and not all_sure else 0)


def set_up_streams() -> None:
    """Have `| head` end the command without a word, and a file's name come out as it is, whatever its encoding."""
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # on Windows what a code page lacks is spelt out
            stream.reconfigure(errors="surrogateescape" if os.name == "posix" else "backslashreplace")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="predict.py", description="Say which digit is in each image.")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file; a folder, for all images in it; - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    parser.add_argument(
        "--strict", action="store_true", help=f"exit with status {WARNED} where a prediction comes with a warning"
    )
    parser.add_argument(
        "--tta",
        type=int,
        choices=(1, 5, 9),
        default=1,
        help="copies, shifted by a pixel, to average over",
    )
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help=f"{MODEL_FILE} (the default) or {ONNX_FILE}, or a copy of one"
    )
    names = [f"./{word}" if word.startswith("-") and word.lower().endswith(SUFFIXES) else word for word in sys.argv[1:]]
    return parser.parse_args(names)  # a file -5.png, as a shell gives it for *, is no option


def read_pictures(files: list[Path]) -> tuple[list[Path], list[np.ndarray]]:
    """Read each file as grey levels. A file that can't be read is a line on stderr.

    Returns:
        The files that could be read, and their pictures, (H, W) float32 in [0, 255].
    """
    read, pictures = [], []
    for file in files:
        try:
            if file.is_dir():
                os.scandir(file).close()  # raises where it can't be listed
                raise ValueError("a folder without images")
            with io.BytesIO(sys.stdin.buffer.read()) if file == STANDARD_INPUT else file.open("rb") as opened:
                pictures.append(read_grey(opened))
            read.append(file)
        except (OSError, ValueError) as error:
            print(f"error: {file}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
    return read, pictures


def rank(reading: Reading, class_names: list[str]) -> list[tuple[int, float]]:
    """Rank the digits: (digit, probability), the likeliest first; nothing for an empty picture."""
    if reading.probabilities is None:
        return []
    order = reading.probabilities.argsort(descending=True)
    return [(int(class_names[i]), reading.probabilities[i].item()) for i in order]


def as_json(file: Path, ranking: list[tuple[int, float]], warning: str | None) -> str:
    """Write one line for one file."""
    ranked = [{"digit": digit, "probability": probability} for digit, probability in ranking]
    best = ranked[0] if ranked else {"digit": None, "probability": None}
    return json.dumps({"file": str(file), **best, "runners_up": ranked[1 : 1 + RUNNERS_UP], "warning": warning})


def as_row(file: Path, ranking: list[tuple[int, float]], warning: str | None) -> str:
    """Write the same as a line of a table."""
    shown = [f"{digit} {probability:.2%}" for digit, probability in ranking[1 : 1 + RUNNERS_UP]]
    digit, probability = (ranking[0][0], f"{ranking[0][1]:.2%}") if ranking else ("-", "-")
    row = ROW.format(digit, probability, ", ".join(shown), file)
    return f"{row}  ({warning})" if warning else row
