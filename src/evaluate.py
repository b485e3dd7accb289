"""Stage ``evaluate``: how the kept model does on the test set, class by class."""

import csv
import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import classification_report

from src.dataset import load_manifest, load_test_images
from src.engine import batch_predictions, set_up_machine
from src.errors import UserError, exit_on_user_error
from src.files import atomic_write, write_json
from src.model import MODEL_FILE, load_model
from src.params import load_params
from src.trim import trim

METRICS_FILE = Path("metrics/evaluate/metrics.json")
PREDICTIONS_FILE = Path("metrics/evaluate/predictions.csv")


@exit_on_user_error
def main() -> None:
    params = load_params()
    manifest = load_manifest()
    machine = set_up_machine(params.device, params.precision, params.threads)
    try:
        model, metadata = load_model(MODEL_FILE)
    except ValueError as error:
        raise UserError(f"{error}; run `dvc repro train`") from error
    model = trim(model, metadata["image_size"]).to(machine.device, memory_format=torch.channels_last)
    data = load_test_images(manifest).to(machine.device)

    batches = list(batch_predictions(model, data, metadata["image_size"], machine))
    logits = torch.cat([logits for logits, _ in batches]).cpu()
    labels = torch.cat([labels for _, labels in batches]).cpu()
    predicted = logits.argmax(1)
    class_names = metadata["class_names"]
    metrics = {
        "test": {
            "loss": F.cross_entropy(logits.double(), labels).item(),
            "accuracy": (predicted == labels).double().mean().item(),
            "errors": int((predicted != labels).sum()),
            "images": len(labels),
        },
        "per_class": per_class(labels.numpy(), predicted.numpy(), class_names),
    }
    write_predictions([class_names[i] for i in labels], [class_names[i] for i in predicted])
    write_json(METRICS_FILE, metrics)
    test = metrics["test"]
    print(f"evaluate: {test['errors']} errors in {test['images']:,} test images, accuracy {test['accuracy']:.2%}")
    print(f"evaluate: metrics in {METRICS_FILE}, predictions in {PREDICTIONS_FILE}; next: dvc metrics diff")


def per_class(actual: np.ndarray, predicted: np.ndarray, class_names: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each class, 0 where a class was never predicted."""
    report = classification_report(
        actual,
        predicted,
        labels=range(len(class_names)),
        target_names=class_names,
        output_dict=True,
        zero_division=0,
    )
    return {
        name: {"precision": report[name]["precision"], "recall": report[name]["recall"], "f1": report[name]["f1-score"]}
        for name in class_names
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
