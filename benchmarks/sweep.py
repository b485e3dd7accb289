"""``python -m benchmarks.sweep``: recipes compared on a validation set of 10,000 images.

The test set has no say: of what `train` measures, only the validation set's figures are read. Each recipe is an
experiment in DVC's queue, from the weights in ``params.yaml``. Its result is written to ``benchmarks/sweep.json`` as it
comes; what is there is not run again, and what was killed goes on from its checkpoint.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

from ruamel.yaml import YAML

from benchmarks.machine import short_name
from benchmarks.queue import Experiment
from benchmarks.recipes import NO_PART_OF_A_RECIPE, differences, load_runs, parameters, save_runs
from src.pipeline.params import Params, load_params
from src.pipeline.process import UserError, exit_code

RESULTS_FILE = Path("benchmarks/sweep.json")
HELD_OUT = 1 / 6  # of the training images: 10,000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("recipes", nargs="*", metavar="NAME=VALUE,...", help="what each recipe changes of params.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments, params = parser.parse_args(), load_params()
    runs = load_runs(RESULTS_FILE)
    for text in arguments.recipes:
        overrides = {
            name: YAML(typ="safe").load(value) for name, value in (pair.split("=", 1) for pair in text.split(","))
        }
        if apart := overrides.keys() & {"dataset", *NO_PART_OF_A_RECIPE}:
            raise UserError(f"{text}: {', '.join(sorted(apart))} can't be swept; set it in params.yaml")
        recipe = {"validation_size": HELD_OUT} | overrides
        for seed in arguments.seeds:
            key = {"parameters": parameters(params, recipe), "seed": seed, "weights": Path(params.weights).name}
            if not any(run.items() >= key.items() for run in runs):
                made = experiment(recipe | {"weights": params.weights, "seed": seed}).measure(params)
                runs.append({name: value for name, value in made.items() if not name.startswith("test")})
                save_runs(RESULTS_FILE, runs)
    print("\n".join(table(runs, params)))


def experiment(changes: Mapping[str, object]) -> Experiment:
    """Name the experiment that makes a run."""
    name = f"sweep-{hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:10]}"
    return Experiment(name, changes, last_stage="train", result="validation.loss")


def table(runs: Iterable[Mapping], params: Params) -> list[str]:
    """Format the means over the seeds of each recipe as a Markdown table, the lowest loss first."""
    defaults = parameters(params, {"validation_size": HELD_OUT})
    groups: dict[tuple[str, str, str], list[Mapping]] = {}
    for run in runs:
        changed = [f"`{name}={value}`" for name, value in differences(run["parameters"], defaults).items()]
        key = (", ".join(changed) or "the defaults", run["weights"], short_name(run["machine"]))
        groups.setdefault(key, []).append(run)
    rows = []
    for (recipe, weights, machine), group in groups.items():
        loss, accuracies = mean(run["validation_loss"] for run in group), [run["validation_accuracy"] for run in group]
        spread = f" ± {stdev(accuracies):.2%}" if len(group) > 1 else ""
        figures = f"{len(group)} | {mean(accuracies):.2%}{spread} | {loss:.4f}"
        rows.append((loss, f"| {recipe} | {weights} | {figures} | {machine} |"))
    header = ["| recipe | weights | seeds | accuracy | loss | machine |", "|---|---|---|---|---|---|"]
    return header + [row for _, row in sorted(rows)]


if __name__ == "__main__":
    sys.exit(exit_code(main))
