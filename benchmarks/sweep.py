"""``python -m benchmarks.sweep defaults epochs=20 image_size=40,epochs=5``: recipes on held-out images.

Some 90 writers' 10,000 training images are held out. The test set is not looked at. Each run is an experiment of DVC's.
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean

import dvc.api
import yaml

from benchmarks.compare import against, writers_of
from benchmarks.machine import machine_name, short_name
from benchmarks.recipes import HELD_OUT, load_runs, parameters, save_runs
from benchmarks.seeds import experiment, score
from src.images.dataset import load_manifest
from src.pipeline.params import Params, load_params
from src.pipeline.paths import RUN_FILE
from src.pipeline.process import exit_code
from src.sampling.split import load_sets

RESULTS_FILE = Path("benchmarks/sweep.json")
COPIES = 5  # whose answers are averaged


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "points", nargs="+", metavar="NAME=VALUE,...", help="what to change of params.yaml; or defaults"
    )
    parser.add_argument("--weights", default="imagenet", help="a value of the parameter")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 6, 7], help="not 1 to 5, which are measured with")
    arguments, params = parser.parse_args(), load_params()
    for seed, point in itertools.product(arguments.seeds, arguments.points):
        changes = {} if point == "defaults" else dict(part.split("=") for part in point.split(","))
        changes = {name: yaml.safe_load(value) for name, value in changes.items()} | {"validation_size": HELD_OUT}
        recipe = parameters(params, changes)
        key, runs = (recipe, arguments.weights, seed), load_runs(RESULTS_FILE)
        if key not in [(run["parameters"], run["weights"], run["seed"]) for run in runs]:
            measured = measure(params, changes, arguments.weights, seed)
            run = {"parameters": recipe, "weights": arguments.weights, "seed": seed} | measured
            save_runs(RESULTS_FILE, [*load_runs(RESULTS_FILE), run])
    print("\n".join(table(load_runs(RESULTS_FILE), params)))


def table(runs: Iterable[Mapping], params: Params) -> list[str]:
    """Format the results as a Markdown table: the means over the seeds of each recipe, the lowest loss first."""
    defaults = parameters(params, {"validation_size": HELD_OUT})
    groups: dict[tuple[str, str, str], list[Mapping]] = {}
    for run in runs:
        recipe = run["parameters"]
        changed = [f"`{name}={recipe.get(name)}`" for name in defaults if recipe.get(name) != defaults[name]]
        key = (", ".join(changed) or "the defaults", run["weights"], short_name(run["machine"]))
        groups.setdefault(key, []).append(run)
    rows, writers = [], writers_of("validation")
    first = next((group for (recipe, *_), group in groups.items() if recipe == "the defaults"), [])
    for (recipe, weights, machine), group in groups.items():
        loss, accuracies = mean(run["loss"] for run in group), [run["accuracy"] for run in group]
        better = against([run["wrong"] for run in group], [run["wrong"] for run in first], writers)
        shifted = mean(run["shifted"]["accuracy"] for run in group)
        figures = f"{len(group)} | {mean(accuracies):.2%} | {better} | {loss:.4f} | {shifted:.2%}"
        rows.append((loss, f"| {recipe} | {weights} | {figures} | {machine} |"))
    header = (
        "recipe",
        "weights",
        "seeds",
        "accuracy",
        "against the defaults",
        "loss",
        "five shifted copies",
        "machine",
    )
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(row for _, row in sorted(rows))]


def measure(params: Params, changes: Mapping[str, object], weights: str, seed: int) -> dict:
    """Have DVC train, or find that it has, and see what the model says of the held-out images.

    Returns:
        Loss, accuracy and the numbers of the wrong images, plain and, as ``shifted``, by the mean of the answers for
        `COPIES`; seconds and machine.
    """
    name = re.sub("[^A-Za-z0-9]+", "-", f"sweep-{weights}-{json.dumps(changes)}-seed-{seed}")
    row, seconds = experiment(name, {**changes, "weights": weights, "seed": seed}, "train", params)
    held_out = load_sets(load_manifest(), HELD_OUT)["validation"]
    plain, shifted = (score(row["rev"], held_out, params, copies) for copies in (1, COPIES))
    used = json.loads(dvc.api.read(RUN_FILE.as_posix(), rev=row["rev"]))
    return {**plain, "shifted": shifted, "seconds": seconds, "machine": machine_name(used)}


if __name__ == "__main__":
    sys.exit(exit_code(main))
