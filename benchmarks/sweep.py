"""``python -m benchmarks.sweep``: recipes compared on a validation set of 10,000 images.

The test set has no say: of what `train` measures, only the validation set's figures are read. Each recipe is an
experiment in DVC's queue, from the weights in ``params.yaml``. Its result is written to ``benchmarks/sweep.json`` as it
comes; what is there is not run again, and what was killed goes on from its checkpoint.
"""

import argparse
import csv
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import dvc.api
from ruamel.yaml import YAML

from benchmarks.machine import machine_name
from benchmarks.queue import Experiment
from benchmarks.recipes import NO_PART_OF_A_RECIPE, changes, parameters
from src.pipeline.process import UserError
from src.pipeline.files import write_json
from src.resnet.machine import set_up_machine
from src.pipeline.params import Params, load_params
from src.pipeline.process import exit_on_user_error
from src.pipeline.paths import TRAIN_CURVES_DIR

RESULTS_FILE = Path("benchmarks/sweep.json")
HELD_OUT = 1 / 6  # of the training images: 10,000


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("recipes", nargs="*", metavar="NAME=VALUE,...", help="what each recipe changes of params.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments, params = parser.parse_args(), load_params()
    results = json.loads(RESULTS_FILE.read_text(encoding="utf-8")) if RESULTS_FILE.exists() else {"runs": []}
    for text in arguments.recipes:
        overrides = dict(pair.split("=", 1) for pair in text.split(","))
        overrides = {name: YAML(typ="safe").load(value) for name, value in overrides.items()}
        if apart := overrides.keys() & {"dataset", *NO_PART_OF_A_RECIPE}:
            raise UserError(f"{text}: {', '.join(sorted(apart))} can't be swept; set it in params.yaml")
        overrides = {"validation_size": HELD_OUT, **overrides}
        for seed in arguments.seeds:
            weights = Path(params.weights).name
            key = {"parameters": parameters(params, overrides), "seed": seed, "weights": weights}
            if not any(run.items() >= key.items() for run in results["runs"]):
                results["runs"].append(key | measure({**overrides, "weights": params.weights, "seed": seed}, params))
                write_json(RESULTS_FILE, results)
    print("\n".join(table(results["runs"], params)))


def measure(overrides: Mapping[str, object], params: Params) -> dict[str, object]:
    """Make a run, or find that it has been made, and read the curves of its validation set."""
    name = f"sweep-{hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:10]}"
    experiment = Experiment(name, overrides, last_stage="train", result="validation.loss")
    rev, precision = experiment.row(params)["rev"], str(parameters(params, overrides)["precision"])
    return {
        **{metric: read_curve(metric, rev) for metric in ("loss", "accuracy")},
        "seconds": experiment.training_seconds(),
        "machine": machine_name(set_up_machine(params.device, precision, params.threads)),
    }


def read_curve(metric: str, rev: str) -> list[float]:
    """Read a metric of the validation set after each epoch, from an experiment's commit."""
    text = dvc.api.read((TRAIN_CURVES_DIR / "validation" / f"{metric}.tsv").as_posix(), rev=rev)
    return [float(row[metric]) for row in csv.DictReader(io.StringIO(text), delimiter="\t")]


def table(runs: list[Mapping], params: Params) -> list[str]:
    """The results as a Markdown table, the lowest loss at the end first."""
    defaults = parameters(params, {"validation_size": HELD_OUT})
    lines = [
        "| recipe | weights | seed | accuracy | lowest loss | loss at the end | seconds | machine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in sorted(runs, key=lambda run: run["loss"][-1]):
        figures = f"{run['accuracy'][-1]:.2%} | {min(run['loss']):.4f} | {run['loss'][-1]:.4f} | {run['seconds']}"
        recipe = changes(run["parameters"], defaults)
        lines.append(f"| {recipe} | {run['weights']} | {run['seed']} | {figures} | {run['machine']} |")
    return lines


if __name__ == "__main__":
    main()
