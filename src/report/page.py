"""The page about a run, ``metrics/report.md``, in Markdown as Git hosts render it."""

import json
from collections.abc import Iterable, Mapping, Sequence

from src.pipeline.params import Params
from src.pipeline.paths import PICTURES_DIR, SETS, TRY_AGAIN

CURVES, CONFUSION = "learning_curves.png", "confusion_matrix.png"
MISTAKES, RELIABILITY = "mistakes.png", "reliability.png"
TITLES = {
    CURVES: "Learning curves: loss and accuracy of each set by epoch",
    CONFUSION: "Confusion matrix of the test set",
    MISTAKES: "The most confident mistakes: image, truth, guess, confidence",
    RELIABILITY: "Reliability diagram: accuracy against confidence, and the images in each bin",
}
DATASETS = {"mnist": "MNIST", "sample": "a sample of 5,000 MNIST digits"}


def write_page(params: Params, train: Mapping, test: Mapping, run: Mapping, classes: Mapping[str, list]) -> str:
    """Write the page.

    Args:
        params: what the run was asked for.
        train: the metrics of `train`.
        test: the test metrics of `evaluate`.
        run: what `train` used.
        classes: the columns of `evaluate`'s table of classes.
    """
    missing = not_downloaded(params, run)
    sets = {name: metrics for name, metrics in {**train, "test": test}.items() if name in SETS}
    scores = zip(*(classes[name] for name in ("class", "precision", "recall", "f1")), strict=True)
    parts = [
        "# Report of the run",
        *([f"**{missing} could not be downloaded.** Once the network is there: `{TRY_AGAIN}`."] if missing else []),
        f"ResNet-18 from {run['initial_weights']} weights, "
        f"trained for {params.epochs:g} epoch{'s' * (params.epochs > 1)} on {train['training_images']:,} images of "
        f"{DATASETS[run['dataset']]}, tested on {test['images']:,}.",
        f"**{test['accuracy']:.2%} test accuracy**: {test['errors']:,} errors. "
        f"Expected calibration error {test['calibration_error']:.2%}.",
        table(
            ("set", "mean loss per image", "accuracy"),
            ((name, f"{metrics['loss']:.4f}", f"{metrics['accuracy']:.2%}") for name, metrics in sets.items()),
        ),
        "The train figures are the running ones of the last epoch, on augmented images.",
        *(f"![{title}]({PICTURES_DIR.name}/{name})" for name, title in TITLES.items()),
        "## Class by class",
        table(
            ("class", "precision", "recall", "F1"),
            ((name, *(f"{score:.2%}" for score in row)) for name, *row in scores),
        ),
        "## What the run used",
        table(("what", "value"), ((name.replace("_", " "), f"`{value}`") for name, value in run.items())),
        "## What it was asked for",
        table(("parameter", "value"), ((f"`{name}`", f"`{json.dumps(value)}`") for name, value in params)),
        "Written by `dvc repro`.",
    ]
    return "\n\n".join(parts) + "\n"


def not_downloaded(params: Params, used: Mapping) -> str:
    """Name what a run was asked for and had to do without, for want of a network; nothing where it got all."""
    missing = ["MNIST"] if used["dataset"] != params.dataset else []
    if params.weights != "random" and used["initial_weights"] == "random":
        missing.append("the ImageNet weights" if missing else "The ImageNet weights")
    return " and ".join(missing)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
