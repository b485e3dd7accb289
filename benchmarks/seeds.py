"""``make seeds``: the recipes over several seeds, as experiments in DVC's queue, one at a time.

Whatever kills it, the same command goes on: runs that are in ``benchmarks/seeds.json`` are done, experiments that DVC
has are read, one that was killed goes on from its checkpoint. The queue's worker lives on when this command is killed,
and is waited for by the next.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import dvc.api
import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from benchmarks.machine import machine_name
from benchmarks.recipes import RECIPES, parameters
from src.pipeline.errors import exit_on_user_error
from src.pipeline.files import write_file, write_json
from src.pipeline.machine import set_up_machine
from src.pipeline.params import PARAMS_FILE, Params, load_params
from src.report.figures import BLUE, STYLE, VERMILION, encode_png

RESULTS_FILE = Path("benchmarks/seeds.json")
PICTURE_FILE = Path("benchmarks/seeds.png")
POLL_SECONDS, PATIENCE = 2.0, 10
LAST_STAGE = "evaluate"  # the others make nothing that is read here


class Run(NamedTuple):
    """One run: a recipe, from some weights, with a seed."""

    recipe: str
    weights: str  # a value of the parameter
    seed: int

    @property
    def experiment(self) -> str:
        """The name of its experiment."""
        return f"{self.recipe}-{re.sub('[^A-Za-z0-9]+', '-', Path(self.weights).stem)}-{self.seed}"

    def values(self) -> dict[str, object]:
        """The parameters that make it. What it asks for it gets, or it fails: no sample, no random weights instead."""
        return RECIPES[self.recipe] | {"weights": self.weights, "seed": self.seed, "offline_fallback": False}


@exit_on_user_error
def main() -> None:
    arguments, params = parse_arguments(), load_params()
    wanted = itertools.starmap(Run, itertools.product(arguments.recipes, arguments.weights, arguments.seeds))
    for run in wanted:
        results = load_results()
        if not find(results["runs"], run, params):
            print(f"seeds: {run.experiment} ...", flush=True)
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
    """Have DVC's queue make the run, or find that it has been made, and read its metrics."""
    row = row_of(run)
    if row is None:
        bring_to_its_end(run)
        row = row_of(run)
    if row is None:
        sys.exit(f"error: {run.experiment} failed; see `dvc queue logs {run.experiment}`")
    for name, value in parameters(params, run.values()).items():
        was = row.get(name, row.get(f"{PARAMS_FILE}:{name}"))  # the longer name where a metric has the short one
        if was not in (value, str(value)):
            sys.exit(f"error: {run.experiment} was run with {name}={was}; `dvc exp remove {run.experiment}`")
    return {
        "recipe": run.recipe,
        "parameters": parameters(params, RECIPES[run.recipe]),
        "weights": Path(run.weights).name,
        "seed": run.seed,
        "validation_accuracy": row.get("validation.accuracy"),  # None where nothing is held out
        "validation_loss": row.get("validation.loss"),
        "test_accuracy": row["test.accuracy"],
        "seconds": training_seconds(run),
        "machine": machine_name(set_up_machine(params.device, params.precision, params.threads)),
    }


def bring_to_its_end(run: Run) -> None:
    """Queue the run, unless it is queued, and wait for it."""
    state = queue_state(run)
    if state == "Running" and not worker_is_active():  # it was killed
        dvc_prints("queue", "kill", run.experiment)
        state = "Failed"
    if state in ("Failed", "Success"):  # an earlier attempt
        dvc_prints("queue", "remove", run.experiment)
        state = None
    if state is None:
        values = [word for name, value in run.values().items() for word in ("-S", f"{name}={json.dumps(value)}")]
        dvc_prints("exp", "run", "--queue", "--name", run.experiment, *values, LAST_STAGE)
    dvc_prints("queue", "start")
    idle = 0  # polls in a row without a worker: one that starts or ends has none for a moment
    while queue_state(run) in ("Queued", "Running") and idle < PATIENCE:
        time.sleep(POLL_SECONDS)
        idle = 0 if worker_is_active() else idle + 1


def row_of(run: Run) -> dict | None:
    """The run's row in the table of experiments; None where it has not come to its end."""
    rows = [row for row in dvc.api.exp_show() if row["Experiment"] == run.experiment]
    return next((row for row in rows if row.get("test.accuracy") is not None), None)


def queue_state(run: Run) -> str | None:
    """What ``dvc queue status`` says of the run; None where it is not in the queue."""
    found = re.search(rf"^\w+ +{run.experiment} .* (\w+) *$", dvc_prints("queue", "status"), re.MULTILINE)
    return found[1] if found else None


def worker_is_active() -> bool:
    """Whether a worker of the queue is at work."""
    return "Worker status: 0 active" not in dvc_prints("queue", "status")


def training_seconds(run: Run) -> float | None:
    """The seconds of all epochs, by the lines that ``train`` printed; None where they were not trained in one go."""
    if queue_state(run) is None:
        return None
    log = dvc_prints("queue", "logs", run.experiment)
    if "going on from step" in log or not (seconds := re.findall(r"^epoch .*, (\d+) s\)$", log, re.MULTILINE)):
        return None
    return sum(map(int, seconds))


def dvc_prints(*arguments: str) -> str:
    """Run DVC; return what it prints, with the errors that it means for the user."""
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        sys.exit(f"error: dvc {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


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
