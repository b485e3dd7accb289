"""Stage ``report``: the run in pictures and on one page, from its figures and the test images, without the model."""

import os
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from src.images.dataset import load_images, load_manifest
from src.pipeline.files import read_columns, read_json, write_file
from src.pipeline.params import Params, load_params
from src.pipeline.paths import (
    CALIBRATION_FILE,
    CARD_FILE,
    CLASSES_FILE,
    EVALUATE_METRICS_FILE,
    PICTURES_DIR,
    PREDICTIONS_FILE,
    REPORT_FILE,
    RUN_FILE,
    SETS,
    TRAIN_CURVES_DIR,
    TRAIN_METRICS_FILE,
)
from src.pipeline.process import UserError, require_unchanged_inputs
from src.report.card import write_card
from src.report.figures import confusion_matrix, learning_curves, most_confident_mistakes, reliability_diagram
from src.report.page import CONFUSION, CURVES, MISTAKES, RELIABILITY, write_page

DOUBTFUL_LABELS = (  # test images of MNIST whose label fewer than three of five people accept, by page.DOUBTFUL_SOURCE
    *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729),
)


def main() -> None:
    # Load what the other stages left.
    params = load_params()
    require_params_of_the_run(params)
    train, test = read_json(TRAIN_METRICS_FILE), read_json(EVALUATE_METRICS_FILE)["test"]
    run = read_json(RUN_FILE)
    classes = read_columns(CLASSES_FILE, {"class": str, "precision": float, "recall": float, "f1": float})
    bins = read_columns(CALIBRATION_FILE, dict.fromkeys(("from", "to", "images", "confidence", "accuracy"), float))
    bins = {name: np.array(values) for name, values in bins.items()}
    manifest = load_manifest()
    class_names = manifest.class_names
    label = {name: number for number, name in enumerate(class_names)}.__getitem__  # there may be a thousand
    predictions = read_columns(PREDICTIONS_FILE, {"actual": label, "predicted": label, "confidence": float})
    actual, predicted, confidences = map(np.array, predictions.values())
    images = load_images(manifest, "test").images
    doubted = np.isin(np.arange(len(actual)), DOUBTFUL_LABELS if run["dataset"] == "mnist" else ())

    # Draw.
    pictures = {
        CURVES: learning_curves(load_curves("loss"), load_curves("accuracy")),
        CONFUSION: confusion_matrix(actual, predicted, class_names),
        MISTAKES: most_confident_mistakes(images, actual, predicted, confidences, class_names, doubted),
        RELIABILITY: reliability_diagram(bins, test["calibration_error"]),
    }

    # Save.
    require_unchanged_inputs()
    for name, picture in pictures.items():
        write_file(PICTURES_DIR / name, picture)
    doubtful = summarise_doubtful(actual == predicted, doubted)
    write_file(REPORT_FILE, write_page(params, train, test, run, classes, doubtful).encode())
    write_file(CARD_FILE, write_card(test, run, class_names, train["training_images"]).encode())
    print(f"report: {REPORT_FILE}, its pictures in {PICTURES_DIR}")


def require_params_of_the_run(params: Params) -> None:
    """Check that the stages before had the parameters that are there now: the page and DVC's experiment name these.

    Raises:
        UserError: one was edited since, as ``dvc.lock`` has it.
    """
    lock = Path("dvc.lock")
    if not os.environ.get("DVC_STAGE") or not lock.exists():  # DVC sets it
        return
    stages = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))["stages"]  # to PyYAML, 1e-05 is a text
    for stage in stages.keys() - {"report"}:
        for name, value in stages[stage].get("params", {}).get("params.yaml", {}).items():
            if (now := getattr(params, name, value)) != value:
                raise UserError(
                    f"{name} changed from {value} to {now} after {stage} ran, so there is no report; undo the change "
                    "and run the same command again, or run it again as it is"
                )


def load_curves(metric: str) -> dict[str, list[float]]:
    """Read ``loss`` or ``accuracy`` after each epoch, of each set that the run had."""
    curves = {name: read_columns(TRAIN_CURVES_DIR / name / f"{metric}.tsv", {metric: float}) for name in SETS}
    return {name: columns[metric] for name, columns in curves.items() if columns[metric]}


def summarise_doubtful(right: np.ndarray, doubted: np.ndarray) -> dict[str, float]:
    """Summarise for `write_page` how images (N,) bool with a doubtful label, (N,) bool, were classified."""
    if not doubted.any():
        return {}
    errors = int((doubted & ~right).sum())
    return {"images": int(doubted.sum()), "errors": errors, "accuracy": float(right[~doubted].mean())}
