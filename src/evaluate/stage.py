"""Stage ``evaluate``: how the trained model does on the test set, in figures and tables."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import precision_recall_fscore_support

from src.images.dataset import load_images, load_manifest, load_writers
from src.pipeline.files import write_json, write_table
from src.pipeline.params import load_params
from src.pipeline.paths import CALIBRATION_FILE, CLASSES_FILE, EVALUATE_METRICS_FILE, MODEL_FILE, PREDICTIONS_FILE
from src.pipeline.process import print_styled, require_unchanged_inputs
from src.resnet.inference import InputFormat, predict_logits, predict_probabilities
from src.resnet.machine import set_up_machine
from src.resnet.model_file import load_model
from src.resnet.network import trim

BINS = 15  # of the calibration table, as in Guo et al. 2017


def main() -> None:
    params = load_params()
    machine = set_up_machine(params.device, "fp32", params.threads)  # as the command and the ONNX file answer

    # Load the model and the test images.
    model, metadata = load_model(MODEL_FILE)
    class_names, form = metadata["class_names"], InputFormat.of_model(metadata)
    model = trim(model, form.image_size).to(machine.device).to(memory_format=torch.channels_last)
    manifest = load_manifest()
    test_set = load_images(manifest, "test")
    images, actual = torch.from_numpy(test_set.images), test_set.labels
    writers = load_writers(manifest, "test")

    # Predict.
    logits = predict_logits(model, images, form, machine).cpu()
    confidences, predicted = (tensor.numpy() for tensor in logits.double().softmax(1).max(1))

    # Compare with the truth.
    right = predicted == actual
    calibration = calibration_table(confidences, right)
    test: dict[str, Any] = {
        "loss": F.cross_entropy(logits, torch.from_numpy(actual), reduction="sum").item() / len(actual),
        "accuracy": float(right.mean()),
        "standard_error": standard_error(right, np.arange(len(right)) if writers is None else writers),
        "errors": int((~right).sum()),
        "images": len(actual),
        "calibration_error": expected_calibration_error(calibration),
    }
    if params.tta > 1:
        averaged = predict_probabilities(model, images, form, machine, params.tta)
        errors = int((averaged.argmax(1).numpy() != actual).sum())
        loss = F.nll_loss(averaged.log(), torch.from_numpy(actual)).item()
        test["tta"] = {"copies": params.tta, "loss": loss, "accuracy": 1 - errors / len(actual), "errors": errors}

    # Save.
    require_unchanged_inputs()
    write_json(EVALUATE_METRICS_FILE, {"test": test})
    write_table(CLASSES_FILE, class_table(actual, predicted, class_names))
    write_table(CALIBRATION_FILE, calibration)
    write_table(PREDICTIONS_FILE, prediction_table(actual, predicted, confidences, class_names))
    errors = f"{test['errors']} errors in {test['images']:,} test images"
    print_styled(f"evaluate: {errors}, accuracy {test['accuracy']:.2%}", "bold green")


def standard_error(values: np.ndarray, clusters: np.ndarray) -> float:
    """Estimate the standard error of a mean over clusters of values, each cluster drawn as a whole.

    Images by one writer are alike, so they count for less than as many by others. The estimate is the linearised one of
    survey statistics, which the bootstrap over clusters nears (Cameron and Miller 2015,
    https://doi.org/10.3368/jhr.50.2.317). For clusters of one value it is the usual one.

    Args:
        values: (N,)
        clusters: (N,), the cluster of each value.
    """
    _, members = np.unique(clusters, return_inverse=True)
    return float(np.sqrt(np.square(np.bincount(members, values - values.mean())).sum()) / len(values))


def class_table(actual: np.ndarray, predicted: np.ndarray, class_names: list[str]) -> list[dict[str, str | float]]:
    """Give a row for each class: its precision, recall and F1, 0 where it was never predicted."""
    labels = range(len(class_names))
    scores = precision_recall_fscore_support(actual, predicted, labels=labels, zero_division=0)
    rows = np.array(scores[:3]).T.tolist()
    return [
        {"class": name, "precision": precision, "recall": recall, "f1": f1}
        for name, (precision, recall, f1) in zip(class_names, rows, strict=True)
    ]


def prediction_table(
    actual: np.ndarray, predicted: np.ndarray, confidences: np.ndarray, class_names: list[str]
) -> list[dict[str, str]]:
    """Give a row for each test image, in order, under the names that DVC's confusion template takes."""
    return [
        {"actual": class_names[truth], "predicted": class_names[guess], "confidence": f"{confidence:.6f}"}
        for truth, guess, confidence in zip(actual, predicted, confidences, strict=True)
    ]


def calibration_table(confidences: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Count predictions in `BINS` equal-width bins of their confidence; bin m holds ((m - 1) / BINS, m / BINS].

    How far a confidence can be trusted: Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    Args:
        confidences: (N,) float64, the probability of the predicted class, in (0, 1].
        right: (N,) bool, whether the predicted class is the true one.

    Returns:
        A row for each bin that is not empty: its limits, how many predictions it holds, their mean confidence, and the
        share that is right.
    """
    bins = np.ceil(confidences * BINS).astype(int) - 1
    rows = []
    for number in np.unique(bins):
        inside = bins == number
        rows.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "images": int(inside.sum()),
                "confidence": float(confidences[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
        )
    return rows


def expected_calibration_error(table: list[dict[str, float]]) -> float:
    """Average |accuracy - confidence| over the bins, each weighted by its number of predictions."""
    images = np.array([row["images"] for row in table])
    gaps = np.array([abs(row["accuracy"] - row["confidence"]) for row in table])
    return float((gaps * images).sum() / images.sum())
