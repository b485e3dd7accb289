"""``make seeds``: the recipes over several seeds, as experiments in DVC's queue, one at a time.

Whatever kills it, the same command goes on: runs that are in ``benchmarks/seeds.json`` are done, experiments that DVC
has are read, one that was killed goes on from its checkpoint.
"""

import argparse
import itertools
import re
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.machine import short_name
from benchmarks.queue import Experiment
from benchmarks.recipes import RECIPES, load_runs, parameters, save_runs
from src.pipeline.params import Params, load_params
from src.pipeline.process import exit_code

RESULTS_FILE = Path("benchmarks/seeds.json")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--weights", nargs="+", default=["random"], help="random, imagenet, or files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    arguments, params = parser.parse_args(), load_params()
    for wanted in itertools.product(arguments.recipes, arguments.weights, arguments.seeds):
        runs = load_runs(RESULTS_FILE)
        if not find(runs, *wanted, params):
            made = experiment(*wanted)
            print(f"seeds: {made.name} ...", flush=True)
            save_runs(RESULTS_FILE, [*runs, {"recipe": wanted[0]} | made.measure(params)])
    print("\n".join(table(load_runs(RESULTS_FILE), params)))


def experiment(recipe: str, weights: str, seed: int) -> Experiment:
    """Name the experiment that makes a run. ``weights`` is a value of the parameter."""
    name = f"{recipe}-{re.sub('[^A-Za-z0-9]+', '-', Path(weights).stem)}-{seed}"
    changes = RECIPES[recipe] | {"weights": weights, "seed": seed}
    return Experiment(name, changes, last_stage="evaluate", result="test.accuracy")


def find(runs: Iterable[Mapping], recipe: str, weights: str, seed: int, params: Params) -> bool:
    """Tell whether a run is among the results, with the recipe as it is now."""
    key = (recipe, parameters(params, RECIPES[recipe]), Path(weights).name, seed)
    return key in [(run["recipe"], run["parameters"], run["weights"], run["seed"]) for run in runs]


def table(runs: Iterable[Mapping], params: Params) -> list[str]:
    """Format the results as a Markdown table: a row for each recipe, weights and machine."""
    lines = [
        "| recipe | weights | mean test accuracy | standard deviation | n | worst | median seconds | machine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (recipe, weights, machine), group in by_kind(runs, params).items():
        accuracies = [run["test_accuracy"] for run in group]
        spread = f"{statistics.stdev(accuracies):.3%}" if len(group) > 1 else "-"
        times = [run["seconds"] for run in group if run["seconds"] is not None]
        seconds = f"{statistics.median(times):.0f}" if times else "-"
        figures = f"{statistics.mean(accuracies):.3%} | {spread} | {len(group)} | {min(accuracies):.2%} | {seconds}"
        lines.append(f"| {recipe} | {weights} | {figures} | {short_name(machine)} |")
    return lines


def by_kind(runs: Iterable[Mapping], params: Params) -> dict[tuple[str, str, str], list[Mapping]]:
    """Group the runs by recipe, weights and machine; those of a recipe that is another one now are left out."""
    groups: dict[tuple[str, str, str], list[Mapping]] = {}
    for run in runs:
        if run["recipe"] in RECIPES and run["parameters"] == parameters(params, RECIPES[run["recipe"]]):
            groups.setdefault((run["recipe"], run["weights"], run["machine"]), []).append(run)
    return groups


if __name__ == "__main__":
    sys.exit(exit_code(main))
