"""Stage ``report``: the run in pictures and on one page, from its figures and the test images, without the model."""

from src.pipeline.errors import exit_on_user_error, report_interrupt_in_one_line

if __name__ == "__main__":
    report_interrupt_in_one_line()

import numpy as np

from src.mnist.images import CLASS_NAMES, load_test_images
from src.mnist.manifest import load_manifest
from src.pipeline.files import read_columns, read_json, write_file
from src.pipeline.params import load_params
from src.pipeline.results import (
    CALIBRATION_FILE,
    CLASSES_FILE,
    EVALUATE_METRICS_FILE,
    PREDICTIONS_FILE,
    RUN_FILE,
    SETS,
    TRAIN_CURVES_DIR,
    TRAIN_METRICS_FILE,
)
from src.report.figures import confusion_matrix, learning_curves, most_confident_mistakes, reliability_diagram
from src.report.page import CONFUSION, CURVES, MISTAKES, PAGE_FILE, PICTURES_DIR, RELIABILITY, write_page


@exit_on_user_error
def main() -> None:
    # Load what the other stages left.
    params = load_params()
    train, test = read_json(TRAIN_METRICS_FILE), read_json(EVALUATE_METRICS_FILE)["test"]
    run, classes = read_json(RUN_FILE), read_columns(CLASSES_FILE)
    bins = {name: np.array(cells, float) for name, cells in read_columns(CALIBRATION_FILE).items()}
    actual, predicted, confidences = load_predictions()
    images, _ = load_test_images(load_manifest())

    # Draw.
    pictures = {
        CURVES: learning_curves(load_curves("loss"), load_curves("accuracy")),
        CONFUSION: confusion_matrix(actual, predicted, CLASS_NAMES),
        MISTAKES: most_confident_mistakes(images.numpy(), actual, predicted, confidences, CLASS_NAMES),
        RELIABILITY: reliability_diagram(bins, test["calibration_error"]),
    }

    # Save.
    for name, picture in pictures.items():
        write_file(PICTURES_DIR / name, picture)
    write_file(PAGE_FILE, write_page(params, train, test, run, classes).encode())
    print(f"report: {PAGE_FILE}, its pictures in {PICTURES_DIR}")


def load_curves(metric: str) -> dict[str, list[float]]:
    """Read ``loss`` or ``accuracy`` after each epoch, of each set that the run had."""
    curves = {name: read_columns(TRAIN_CURVES_DIR / name / f"{metric}.tsv")[metric] for name in SETS}
    return {name: [float(value) for value in values] for name, values in curves.items() if values}


def load_predictions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read of each test image the true class, the predicted one, both (N,) int, and the latter's probability (N,)."""
    columns = read_columns(PREDICTIONS_FILE)
    actual = np.array([CLASS_NAMES.index(name) for name in columns["actual"]])
    predicted = np.array([CLASS_NAMES.index(name) for name in columns["predicted"]])
    return actual, predicted, np.array(columns["confidence"], float)


if __name__ == "__main__":
    main()
