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
        pictures = [(file, grey) for file in chunk if (grey := read_picture(file)) is not None]
        all_read &= len(pictures) == len(chunk)
        readings = recognise([grey for _, grey in pictures], classifier, arguments.tta)
        for (file, _), reading in zip(pictures, readings, strict=True):
            all_sure &= reading.warning is None
            print((as_json if arguments.json else as_row)(file, reading))
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
    parser.add_argument("--tta", type=int, choices=(1, 5, 9), default=1, help="copies, shifted by a pixel, to average")
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help=f"{MODEL_FILE} (the default) or {ONNX_FILE}, or a copy of one"
    )
    names = [f"./{word}" if word.startswith("-") and word.lower().endswith(SUFFIXES) else word for word in sys.argv[1:]]
    return parser.parse_args(names)  # a file -5.png, as a shell gives it for *, is no option


def read_picture(file: Path) -> np.ndarray | None:
    """Read a file as grey levels, (H, W) float32 in [0, 255]. Where it can't be read, that is a line on stderr."""
    try:
        if file.is_dir():
            os.scandir(file).close()  # raises where it can't be listed
            raise ValueError("a folder without images")
        with io.BytesIO(sys.stdin.buffer.read()) if file == STANDARD_INPUT else file.open("rb") as opened:
            return read_grey(opened)
    except (OSError, ValueError) as error:
        print(f"error: {file}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return None


def as_json(file: Path, reading: Reading) -> str:
    """Write one line for one file."""
    ranking = [{"digit": int(digit), "probability": share} for digit, share in reading.probabilities.items()]
    best = ranking[0] if ranking else {"digit": None, "probability": None}
    runners_up = ranking[1 : 1 + RUNNERS_UP]
    return json.dumps({"file": str(file), **best, "runners_up": runners_up, "warning": reading.warning})


def as_row(file: Path, reading: Reading) -> str:
    """Write the same as a line of a table."""
    ranking = [(digit, f"{share:.2%}") for digit, share in reading.probabilities.items()]
    best = ranking[0] if ranking else ("-", "-")
    row = ROW.format(*best, ", ".join(map(" ".join, ranking[1 : 1 + RUNNERS_UP])), file)
    return f"{row}  ({reading.warning})" if reading.warning else row
