"""The page about a run, ``metrics/report.md``, in Markdown as Git hosts render it."""

import json
from collections.abc import Iterable, Mapping, Sequence

from src.pipeline.params import NETWORKS, Params
from src.pipeline.paths import PICTURES_DIR, SETS, TRY_AGAIN

CURVES, CONFUSION = "learning_curves.png", "confusion_matrix.png"
MISTAKES, RELIABILITY = "mistakes.png", "reliability.png"
TITLES = {  # and how to read each
    CURVES: (
        "Learning curves: loss and accuracy of each set by epoch",
        "If only the training loss still falls, the network is overfitting.",
    ),
    CONFUSION: (
        "Confusion matrix of the test set",
        "Each row is a true class, and correct answers are on the diagonal. Darker means more (log scale).",
    ),
    MISTAKES: (
        "The most confident mistakes: image, truth, guess, confidence",
        "Sorted by confidence, the highest first.",
    ),
    RELIABILITY: (
        "Reliability diagram: accuracy against confidence, and the images in each bin",
        "Below the diagonal the network is overconfident. Bins with few images say little.",
    ),
}
WEIGHTS = {
    "imagenet_cntk": "ImageNet weights (Microsoft's, trained with CNTK)",
    "imagenet1k_v1": "torchvision's ImageNet weights",
    "random": "random weights",
}
DATASETS = {
    "mnist": "MNIST",
    "sample": "a sample of 5,000 MNIST digits",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
}
TEST_BY_CLASS = "The folder has no test set: a share of each class was held out for it."
MOST_LISTED = 30  # classes

DOUBTFUL_SOURCE = "https://github.com/cleanlab/label-errors"
ONCE_THERE = f"Once the network is there: `{TRY_AGAIN}`."
VALIDATION = {
    "writer": "The validation images are by writers who wrote none of the training images.",
    "class": "The validation images are the same share of each class.",
}


def write_page(
    params: Params, train: Mapping, test: Mapping, run: Mapping, classes: Mapping[str, list], doubtful: Mapping
) -> str:
    """Write the page.

    Args:
        params: what the run was asked for.
        train: the metrics of `train`.
        test: the test metrics of `evaluate`.
        run: what `train` used.
        classes: the columns of `evaluate`'s table of classes.
        doubtful: of the test images with a doubtful label the number and the ``errors``, and ``accuracy`` without them;
            empty where none is known.
    """
    sets = {name: metrics for name, metrics in {**train, "test": test}.items() if name in SETS}
    scores = list(zip(*(classes[name] for name in ("class", "precision", "recall", "f1")), strict=True))
    listed = scores if len(scores) <= MOST_LISTED else sorted(scores, key=lambda row: row[-1])[:MOST_LISTED]
    parts = [
        "# Report of the run",
        *([f"**MNIST could not be downloaded.** {ONCE_THERE}"] if fell_back(params, run["dataset"]) else []),
        f"{NETWORKS[run['network']]} from {name_weights(run['initial_weights'])}, "
        f"trained for {params.epochs:g} epoch{'s' * (params.epochs > 1)} on {train['training_images']:,} images of "
        f"{name_dataset(run['dataset'])}, tested on {test['images']:,}."
        + f" {TEST_BY_CLASS}"
        * (run["test_split"] == "class"),
        f"**{test['accuracy']:.2%} test accuracy**: {test['errors']:,} errors, standard error "
        f"{test['standard_error']:.2%}. Expected calibration error {test['calibration_error']:.2%}.",
        *([describe_tta(test["tta"])] if "tta" in test else []),
        table(
            ("set", "mean loss per image", "accuracy"),
            ((name, f"{metrics['loss']:.4f}", f"{metrics['accuracy']:.2%}") for name, metrics in sets.items()),
        ),
        f"Loss and accuracy on train are averages over the last epoch{', on augmented images' * params.augment}. "
        + (VALIDATION[run["validation_split"]] if "validation" in sets else ""),
        *(
            [
                f"{doubtful['errors']} of the errors are among {doubtful['images']} test images whose label [people "
                f"doubt]({DOUBTFUL_SOURCE}). Without those the accuracy is {doubtful['accuracy']:.2%}."
            ]
            if doubtful
            else []
        ),
        *(f"![{title}]({PICTURES_DIR.name}/{name})\n\n{reading}" for name, (title, reading) in TITLES.items()),
        "## Class by class" if len(scores) <= MOST_LISTED else f"## The {MOST_LISTED} classes with the lowest F1",
        table(
            ("class", "precision", "recall", "F1"),
            ((name.replace("|", "\\|"), *(f"{score:.2%}" for score in row)) for name, *row in listed),
        ),
        "## What was used",
        table(("what", "value"), ((name.replace("_", " "), f"`{value}`") for name, value in run.items())),
        "## Parameters",
        table(("parameter", "value"), ((f"`{name}`", f"`{json.dumps(value)}`") for name, value in params)),
        "Written by `dvc repro`.",
    ]
    return "\n\n".join(parts) + "\n"


def describe_tta(tta: Mapping) -> str:
    """Give the second figure, of test-time augmentation."""
    return (
        f"With test-time augmentation, the mean answer for {tta['copies']} shifted copies of each image: "
        f"{tta['accuracy']:.2%}, {tta['errors']:,} errors."
    )


def fell_back(params: Params, dataset: str) -> bool:
    """Tell whether a run had to take the sample because MNIST could not be downloaded."""
    return dataset == "sample" and params.dataset == "mnist"


def name_dataset(name: str) -> str:
    """Say what a run was trained on, by the manifest's name of it."""
    return DATASETS.get(name, f"the folder `{name}`")


def name_weights(name: str) -> str:
    """Say whose weights a run started from, by the manifest's name of them."""
    return WEIGHTS.get(name, f"the weights in `{name}`")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
