"""Stage ``report``: the run on one page, ``metrics/report.md``, as Git hosts render it.

A stage of its own, because it shows every parameter: as a part of ``evaluate``, it would have a change of any of them
evaluate the model anew.
"""

import json
from collections.abc import Iterable, Sequence

from src.pipeline.errors import exit_on_user_error
from src.pipeline.files import atomic_write
from src.pipeline.params import Params, load_params
from src.pipeline.results import (
    CONFUSION_MATRIX_FILE,
    EVALUATE_METRICS_FILE,
    LEARNING_CURVES_FILE,
    MISTAKES_FILE,
    RELIABILITY_FILE,
    REPORT_FILE,
    SETS,
    TRAIN_METRICS_FILE,
    load_metrics,
)

DATASETS = {"mnist": "MNIST", "sample": "a sample of 5,000 MNIST digits"}
PICTURES = {
    LEARNING_CURVES_FILE: "Learning curves: loss and accuracy of each set by epoch",
    CONFUSION_MATRIX_FILE: "Confusion matrix of the test set",
    MISTAKES_FILE: "The most confident mistakes: image, truth, guess, confidence",
    RELIABILITY_FILE: "Reliability diagram: accuracy against confidence, and the images in each bin",
}


@exit_on_user_error
def main() -> None:
    text = report(load_params(), load_metrics(TRAIN_METRICS_FILE), load_metrics(EVALUATE_METRICS_FILE))
    with atomic_write(REPORT_FILE) as file:
        file.write(text.encode())
    print(f"report: {REPORT_FILE}")


def report(params: Params, train: dict, evaluate: dict) -> str:
    """The page, in Markdown, from the parameters and the two stages' metrics."""
    test = evaluate["test"]
    epochs = train["step"] + 1
    sets = {name: metrics for name, metrics in (train | {"test": test}).items() if name in SETS}
    parts = [
        "# Report of the run",
        f"ResNet-18 from {train['initial_weights']} weights, trained for {epochs} epoch{'s' * (epochs > 1)} on "
        f"{train['training_images']:,} images of {DATASETS[evaluate['dataset']]}, tested on {test['images']:,}.",
        f"**{test['accuracy']:.2%} test accuracy**: {test['errors']:,} errors. "
        f"Expected calibration error {test['expected_calibration_error']:.2%}.",
        table(
            ("set", "mean loss per image", "accuracy"),
            ((name, f"{metrics['loss']:.4f}", f"{metrics['accuracy']:.2%}") for name, metrics in sets.items()),
        ),
        "The train figures are the running ones of the last epoch, on augmented images.",
        *(f"![{title}]({path.relative_to(REPORT_FILE.parent).as_posix()})" for path, title in PICTURES.items()),
        "## Class by class",
        table(
            ("class", "precision", "recall", "F1"),
            ((name, *(f"{value:.2%}" for value in row.values())) for name, row in evaluate["per_class"].items()),
        ),
        "## Parameters",
        table(
            ("parameter", "value"),
            ((f"`{name}`", f"`{json.dumps(value)}`") for name, value in params),
        ),
        f"Written by `dvc repro` from `{TRAIN_METRICS_FILE.as_posix()}`, `{EVALUATE_METRICS_FILE.as_posix()}` and "
        "`params.yaml`.",
    ]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


if __name__ == "__main__":
    main()
