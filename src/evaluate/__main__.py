"""Stage ``evaluate``: how the kept model does on the test set, class by class, in numbers and in pictures."""

import csv
import io

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import precision_recall_fscore_support

from src.evaluate.calibration import calibration
from src.evaluate.figures import confusion_matrix, learning_curves, most_confident_mistakes, reliability_diagram
from src.mnist.images import load_test_images
from src.mnist.manifest import load_manifest
from src.pipeline.errors import UserError, exit_on_user_error
from src.pipeline.files import atomic_write, write_json
from src.pipeline.machine import set_up_machine
from src.pipeline.params import load_params
from src.pipeline.results import (
    CONFUSION_MATRIX_FILE,
    EVALUATE_METRICS_FILE,
    LEARNING_CURVES_FILE,
    MISTAKES_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    RELIABILITY_FILE,
    load_curve,
)
from src.resnet.inference import batch_predictions
from src.resnet.model_file import load_model
from src.resnet.trim import trim


@exit_on_user_error
def main() -> None:
    params = load_params()
    manifest = load_manifest()
    machine = set_up_machine(params.device, params.precision, params.threads)
    try:
        model, metadata = load_model(MODEL_FILE)
    except ValueError as error:
        raise UserError(f"{error}; run `dvc repro train`") from error
    model = trim(model, metadata["image_size"]).to(machine.device).to(memory_format=torch.channels_last)
    data = load_test_images(manifest).to(machine.device)

    batches = list(batch_predictions(model, data, metadata["image_size"], machine))
    logits = torch.cat([logits for logits, _ in batches]).cpu()
    actual, predicted = data.labels.cpu().numpy(), logits.argmax(1).numpy()
    confidences = logits.double().softmax(1).max(1).values.numpy()
    reliability = calibration(confidences, predicted == actual)
    class_names = metadata["class_names"]

    test = {
        "loss": F.cross_entropy(logits.double(), torch.from_numpy(actual).long()).item(),
        "accuracy": float((predicted == actual).mean()),
        "errors": int((predicted != actual).sum()),
        "images": len(actual),
        "expected_calibration_error": reliability.expected_error,
    }
    by_class = per_class(actual, predicted, class_names)
    images = data.images.cpu().numpy()
    pictures = {
        LEARNING_CURVES_FILE: learning_curves(load_curve("loss"), load_curve("accuracy")),
        CONFUSION_MATRIX_FILE: confusion_matrix(actual, predicted, class_names),
        MISTAKES_FILE: most_confident_mistakes(images, actual, predicted, confidences, class_names),
        RELIABILITY_FILE: reliability_diagram(reliability),
    }

    write_json(EVALUATE_METRICS_FILE, {"dataset": manifest.dataset, "test": test, "per_class": by_class})
    write_predictions([class_names[i] for i in actual], [class_names[i] for i in predicted])
    for path, picture in pictures.items():
        with atomic_write(path) as file:
            file.write(picture)
    print(f"evaluate: {test['errors']} errors in {test['images']:,} test images, accuracy {test['accuracy']:.2%}")
    print(f"evaluate: metrics, predictions and pictures in {EVALUATE_METRICS_FILE.parent}; next: dvc metrics diff")


def per_class(actual: np.ndarray, predicted: np.ndarray, class_names: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each class, 0 where a class was never predicted."""
    scores = precision_recall_fscore_support(actual, predicted, labels=range(len(class_names)), zero_division=0)
    precision, recall, f1, _ = map(np.asarray, scores)
    return {
        name: {"precision": float(precision[i]), "recall": float(recall[i]), "f1": float(f1[i])}
        for i, name in enumerate(class_names)
    }


def write_predictions(actual: list[str], predicted: list[str]) -> None:
    """Write a row for each test image, in order, as DVC's confusion template takes it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["actual", "predicted"])
    writer.writerows(zip(actual, predicted, strict=True))
    with atomic_write(PREDICTIONS_FILE) as file:
        file.write(text.getvalue().encode())


if __name__ == "__main__":
    main()
