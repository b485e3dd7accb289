"""``make seeds``: the recipes over several seeds, as experiments in DVC's queue, one at a time.

Whatever kills it, the same command goes on: runs that are in ``benchmarks/seeds.json`` are done, experiments that DVC
has are read, one that was killed goes on from its checkpoint.
"""

import argparse
import itertools
import json
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from benchmarks.machine import machine_name
from benchmarks.queue import Experiment
from benchmarks.recipes import RECIPES, parameters
from src.pipeline.files import write_file, write_json
from src.resnet.machine import set_up_machine
from src.pipeline.params import Params, load_params
from src.pipeline.process import exit_on_user_error
from src.report.figures import BLUE, STYLE, VERMILION, encode_png

RESULTS_FILE = Path("benchmarks/seeds.json")
PICTURE_FILE = Path("benchmarks/seeds.png")


class Run(NamedTuple):
    """One run: a recipe, from some weights, with a seed."""

    recipe: str
    weights: str  # a value of the parameter
    seed: int

    @property
    def experiment(self) -> Experiment:
        """The experiment that makes it."""
        name = f"{self.recipe}-{re.sub('[^A-Za-z0-9]+', '-', Path(self.weights).stem)}-{self.seed}"
        changes = RECIPES[self.recipe] | {"weights": self.weights, "seed": self.seed}
        return Experiment(name, changes, last_stage="evaluate", result="test.accuracy")


@exit_on_user_error
def main() -> None:
    arguments, params = parse_arguments(), load_params()
    wanted = itertools.starmap(Run, itertools.product(arguments.recipes, arguments.weights, arguments.seeds))
    for run in wanted:
        results = load_results()
        if not find(results["runs"], run, params):
            print(f"seeds: {run.experiment.name} ...", flush=True)
            results["runs"].append(measure(run, params))
            write_json(RESULTS_FILE, results)
            write_file(PICTURE_FILE, draw(results["runs"], params))
    print("\n".join(table(load_results()["runs"], params)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--weights", nargs="+", default=["random"], help="random, imagenet, or files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    return parser.parse_args()


def load_results() -> dict:
    """Read what was measured so far, on this machine or an earlier one."""
    if RESULTS_FILE.exists():
        return json.loads(RESULTS_FILE.read_text(encoding="utf-8"))
    return {"runs": []}


def find(runs: Iterable[Mapping], run: Run, params: Params) -> bool:
    """Whether a run is among the results, with the recipe as it is now."""
    key = (run.recipe, parameters(params, RECIPES[run.recipe]), Path(run.weights).name, run.seed)
    return key in [(entry["recipe"], entry["parameters"], entry["weights"], entry["seed"]) for entry in runs]


def measure(run: Run, params: Params) -> dict:
    """Make the run, or find that it has been made, and read its metrics."""
    row = run.experiment.row(params)
    return {
        "recipe": run.recipe,
        "parameters": parameters(params, RECIPES[run.recipe]),
        "weights": Path(run.weights).name,
        "seed": run.seed,
        "validation_accuracy": row.get("validation.accuracy"),  # None where nothing is held out
        "validation_loss": row.get("validation.loss"),
        "test_accuracy": row["test.accuracy"],
        "seconds": run.experiment.training_seconds(),
        "machine": machine_name(set_up_machine(params.device, params.precision, params.threads)),
    }


def table(runs: Iterable[Mapping], params: Params) -> list[str]:
    """The results as a Markdown table: a row for each recipe, weights and machine."""
    lines = [
        "| recipe | weights | mean test accuracy | standard deviation | n | worst | median seconds | machine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (recipe, weights, machine), group in by_kind(runs, params).items():
        accuracies = [run["test_accuracy"] for run in group]
        spread = f"{statistics.stdev(accuracies):.3%}" if len(group) > 1 else "-"
        seconds = [run["seconds"] for run in group if run["seconds"] is not None]
        lines.append(
            f"| {recipe} | {weights} | {statistics.mean(accuracies):.3%} | {spread} | {len(group)} "
            f"| {min(accuracies):.2%} | {f'{statistics.median(seconds):.0f}' if seconds else '-'} | {machine} |"
        )
    return lines


def by_kind(runs: Iterable[Mapping], params: Params) -> dict[tuple[str, str, str], list[Mapping]]:
    """Group the runs by recipe, weights and machine; those of a recipe that is another one now are left out."""
    groups: dict[tuple[str, str, str], list[Mapping]] = {}
    for run in runs:
        if run["recipe"] in RECIPES and run["parameters"] == parameters(params, RECIPES[run["recipe"]]):
            groups.setdefault((run["recipe"], run["weights"], run["machine"]), []).append(run)
    return groups


@matplotlib.rc_context(STYLE)
def draw(runs: Iterable[Mapping], params: Params) -> bytes:
    """Draw each run's test accuracy as a dot, in a row for each kind of run, and a line at the mean."""
    groups = by_kind(runs, params)
    figure = Figure(figsize=(8, 1 + 0.5 * len(groups)))
    axes = figure.subplots()
    for row, group in enumerate(groups.values()):
        accuracies = [run["test_accuracy"] for run in group]
        axes.plot(accuracies, [row] * len(group), "o", color=BLUE, alpha=0.6)
        axes.plot([statistics.mean(accuracies)] * 2, [row - 0.3, row + 0.3], color=VERMILION)
    axes.set_yticks(range(len(groups)), [f"{recipe}, {weights}" for recipe, weights, _ in groups])
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=2))
    axes.set_title("Test accuracy of each seed, and the mean")
    axes.grid(axis="x")
    return encode_png(figure)


if __name__ == "__main__":
    main()
