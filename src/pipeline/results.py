"""Where the stages' results lie, and how those of training are read back."""

import csv
import json
from pathlib import Path

from src.pipeline.errors import UserError

MODEL_FILE = Path("models/model.safetensors")
ONNX_FILE = Path("models/model.onnx")
TRAIN_METRICS_DIR = Path("metrics/train")
TRAIN_METRICS_FILE = TRAIN_METRICS_DIR / "metrics.json"
TRAIN_CURVES_DIR = TRAIN_METRICS_DIR / "plots/metrics"
EVALUATE_METRICS_FILE = Path("metrics/evaluate/metrics.json")
PREDICTIONS_FILE = Path("metrics/evaluate/predictions.csv")
LEARNING_CURVES_FILE = Path("metrics/evaluate/learning_curves.png")
CONFUSION_MATRIX_FILE = Path("metrics/evaluate/confusion_matrix.png")
MISTAKES_FILE = Path("metrics/evaluate/mistakes.png")
RELIABILITY_FILE = Path("metrics/evaluate/reliability.png")
EXPORT_METRICS_FILE = Path("metrics/export/metrics.json")
REPORT_FILE = Path("metrics/report.md")

SETS = ("train", "validation", "test")


def load_metrics(path: Path) -> dict:
    """Read a stage's ``metrics.json``.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged; run `dvc repro`") from error


def load_curve(metric: str) -> dict[str, list[float]]:
    """Read ``loss`` or ``accuracy`` after each epoch, of each set that the training run had.

    Raises:
        UserError: a curve is damaged, or that of the training set is missing.
    """
    return {name: _load_curve(name, metric) for name in SETS if name == "train" or _curve_file(name, metric).exists()}


def _load_curve(name: str, metric: str) -> list[float]:
    path = _curve_file(name, metric)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [float(row[metric]) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged; run `dvc repro train`") from error


def _curve_file(name: str, metric: str) -> Path:
    return TRAIN_CURVES_DIR / name / f"{metric}.tsv"
