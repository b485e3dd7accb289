"""Stage ``evaluate``: how the trained model does on the test set, in figures and tables."""

from src.pipeline.process import before_imports, exit_on_user_error, run_and_exit

if __name__ == "__main__":
    before_imports()

import numpy as np

from src.evaluate.calibration import calibration_table, expected_calibration_error
from src.mnist.images import load_test_images
from src.mnist.manifest import load_manifest
from src.pipeline.files import write_json, write_table
from src.pipeline.machine import set_up_machine
from src.pipeline.params import load_params
from src.pipeline.results import (
    CALIBRATION_FILE,
    CLASSES_FILE,
    EVALUATE_METRICS_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
)
from src.resnet.inference import Classifier
from src.resnet.metrics import MeanMetrics, mean_metrics


@exit_on_user_error
def main() -> None:
    params = load_params()
    machine = set_up_machine(params.device, params.precision, params.threads)

    # Load the model and the test images.
    classifier = Classifier(MODEL_FILE, machine)
    images, labels = load_test_images(load_manifest())

    # Predict.
    logits = classifier.logits(images)
    confidences, predicted = (tensor.numpy() for tensor in logits.double().softmax(1).max(1))
    actual = labels.numpy()
    right = predicted == actual

    # Compare with the truth.
    means = MeanMetrics(logits.device)
    means.update(logits, labels)
    loss, accuracy = mean_metrics(means.totals)
    calibration = calibration_table(confidences, right)
    test = {
        "loss": loss,
        "accuracy": accuracy,
        "errors": int((~right).sum()),
        "images": len(labels),
        "calibration_error": expected_calibration_error(calibration),
    }

    # Save.
    write_json(EVALUATE_METRICS_FILE, {"test": test})
    write_table(CLASSES_FILE, class_table(actual, predicted, classifier.class_names))
    write_table(CALIBRATION_FILE, calibration)
    write_table(PREDICTIONS_FILE, prediction_table(actual, predicted, confidences, classifier.class_names))
    print(f"evaluate: {test['errors']} errors in {test['images']:,} test images, accuracy {test['accuracy']:.2%}")
    print(f"evaluate: metrics and tables in {EVALUATE_METRICS_FILE.parent}; next: dvc metrics diff")


def class_table(actual: np.ndarray, predicted: np.ndarray, class_names: list[str]) -> list[dict[str, str | float]]:
    """Give a row for each class: its precision, recall and F1, 0 where it was never predicted."""
    count = len(class_names)
    confusion = np.bincount(actual * count + predicted, minlength=count**2).reshape(count, count)
    right, of_class, called = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    scores = right / called.clip(1), right / of_class.clip(1), 2 * right / (of_class + called).clip(1)
    return [
        {"class": name, "precision": float(precision), "recall": float(recall), "f1": float(f1)}
        for name, precision, recall, f1 in zip(class_names, *scores, strict=True)
    ]


def prediction_table(
    actual: np.ndarray, predicted: np.ndarray, confidences: np.ndarray, class_names: list[str]
) -> list[dict[str, str]]:
    """Give a row for each test image, in order, under the names that DVC's confusion template takes."""
    return [
        {"actual": class_names[truth], "predicted": class_names[guess], "confidence": f"{confidence:.6f}"}
        for truth, guess, confidence in zip(actual, predicted, confidences, strict=True)
    ]


if __name__ == "__main__":
    run_and_exit(main)
