"""``make seeds``: the recipes over several seeds, each run an experiment of DVC's in a folder of its own.

Whatever kills it, the same command goes on: runs that are in ``benchmarks/seeds.json`` are done, experiments that DVC
has are read, one that was killed goes on from its checkpoint.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import dvc.api
import torch
import torch.nn.functional as F

from benchmarks.compare import against, writers_of
from benchmarks.machine import machine_name, short_name
from benchmarks.recipes import RECIPES, load_runs, parameters, save_runs
from src.images.dataset import Images, load_images, load_manifest
from src.pipeline.params import PARAMS_FILE, Params, load_params
from src.pipeline.paths import MODEL_FILE, RUN_FILE
from src.pipeline.process import UserError, exit_code
from src.resnet.inference import InputFormat, predict_probabilities
from src.resnet.machine import set_up_machine
from src.resnet.model_file import load_model
from src.resnet.network import trim

RESULTS_FILE = Path("benchmarks/seeds.json")
METRICS = ("validation.accuracy", "validation.loss")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--weights", nargs="+", default=["imagenet"], help="values of the parameter")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    arguments, params = parser.parse_args(), load_params()
    for wanted in itertools.product(arguments.recipes, arguments.weights, arguments.seeds):
        runs = load_runs(RESULTS_FILE)
        if not is_among(runs, *wanted, params):
            save_runs(RESULTS_FILE, [*runs, measure(*wanted, params)])
    print("\n".join(table(load_runs(RESULTS_FILE), params)))


def is_among(runs: Iterable[Mapping], recipe: str, weights: str, seed: int, params: Params) -> bool:
    """Tell whether a run is among the results, with the recipe as it is now."""
    key = (recipe, parameters(params, RECIPES[recipe]), Path(weights).name, seed)
    return key in [(run["recipe"], run["parameters"], run["weights"], run["seed"]) for run in runs]


def measure(recipe: str, weights: str, seed: int, params: Params) -> dict:
    """Have DVC train, or find that it has, and see what the model says of the test images.

    Args:
        weights: a value of the parameter.
        params: what ``params.yaml`` says.

    Returns:
        A run for `recipes.save_runs`; None for a figure that it does not have. ``wrong`` has the numbers of the test
        images that it got wrong.

    Raises:
        UserError: it failed, or there is one of that name with other parameters.
    """
    name = f"{recipe}-{re.sub('[^A-Za-z0-9]+', '-', Path(weights).stem)}-{seed}"
    row, seconds = experiment(name, RECIPES[recipe] | {"weights": weights, "seed": seed}, "train", params)
    test = score(row["rev"], load_images(load_manifest(), "test"), params, RECIPES[recipe].get("tta", 1))
    return {
        "recipe": recipe,
        "parameters": parameters(params, RECIPES[recipe]),
        "weights": Path(weights).name,
        "seed": seed,
        **{metric.replace(".", "_"): row.get(metric) for metric in METRICS},
        "test_accuracy": test["accuracy"],
        "seconds": seconds,
        "machine": machine_name(json.loads(dvc.api.read(RUN_FILE.as_posix(), rev=row["rev"]))),
        "wrong": test["wrong"],
    }


def score(revision: str, data: Images, params: Params, copies: int) -> dict:
    """See what an experiment's model says of images, by the mean of its answers for ``copies`` of each.

    Returns:
        ``loss``, ``accuracy``, and as ``wrong`` the numbers of the images that it got wrong.
    """
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(dvc.api.read(MODEL_FILE.as_posix(), rev=revision, mode="rb"))
        model, metadata = load_model(Path(file.name))
    form, machine = InputFormat.of_model(metadata), set_up_machine(params.device, "fp32", params.threads)
    model = trim(model, form.image_size).to(machine.device).to(memory_format=torch.channels_last)
    images, labels = map(torch.from_numpy, (data.images, data.labels))
    probabilities = predict_probabilities(model, images, form, machine, copies)
    right = probabilities.argmax(1) == labels
    return {
        "loss": F.nll_loss(probabilities.log(), labels).item(),
        "accuracy": right.double().mean().item(),
        "wrong": (~right).nonzero().flatten().tolist(),
    }


def experiment(name: str, changes: Mapping[str, object], stage: str, params: Params) -> tuple[dict, int | None]:
    """Find an experiment, or make it, up to a stage: its row of `dvc.api.exp_show`, and the seconds of its epochs.

    Raises:
        UserError: it failed, or there is one of that name with other parameters.
    """
    print(f"{name} ...", flush=True)
    row, seconds = find_experiment(name), None
    if row is None:
        seconds = run_experiment(name, changes, stage)
        row = find_experiment(name)
    if row is None:
        raise UserError(f"{name} is no experiment of DVC's, nor could it be made; see `dvc exp show`")
    for parameter, value in parameters(params, changes).items():
        # DVC takes the longer name where a metric has the short one
        was = row.get(parameter, row.get(f"{PARAMS_FILE}:{parameter}"))
        if was not in (value, str(value)):
            raise UserError(f"{name} was run with {parameter}={was}; `dvc exp remove {name}`")
    return row, seconds


def find_experiment(name: str) -> dict | None:
    """Find its row once it is through: for one that runs or has failed DVC shows the last commit's metrics."""
    rows = [row for row in dvc.api.exp_show() if row["Experiment"] == name]
    rows = [row for row in rows if row["State"] in (None, "Success")]  # None for one that was not in the queue
    return next(({key: None if value == "None" else value for key, value in row.items()} for row in rows), None)


def run_experiment(name: str, changes: Mapping[str, object], stage: str) -> int | None:
    """Run an experiment up to a stage. What it asks for it gets, or it fails.

    Returns:
        The seconds of all epochs, as ``train`` printed them; None where DVC restored it, or went on with a killed one.
    """
    values = [f"--set-param={key}={json.dumps(value)}" for key, value in {**changes, "offline_fallback": False}.items()]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *values, stage]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise UserError(f"{name} failed: {done.stderr.strip()}")
    seconds = [int(found) for found in re.findall(r"^epoch .*, (\d+) s\)$", done.stdout, re.MULTILINE)]
    return sum(seconds) if seconds and "going on from step" not in done.stdout else None


def table(runs: Iterable[Mapping], params: Params) -> list[str]:
    """Format the results as a Markdown table: a row for each recipe, weights and machine, against the first of them."""
    header = ("recipe", "weights", "mean test accuracy", "standard deviation", "n", "worst", "against the first row")
    lines = [f"| {' | '.join(header)} | median seconds | machine |", "|---" * (len(header) + 2) + "|"]
    groups, writers = by_kind(runs, params), writers_of("test")
    first = [run["wrong"] for run in next(iter(groups.values()), [])]
    for (recipe, weights, machine), group in groups.items():
        accuracies = [run["test_accuracy"] for run in group]
        spread = f"{statistics.stdev(accuracies):.3%}" if len(group) > 1 else "-"
        times = [run["seconds"] for run in group if run["seconds"] is not None]
        seconds = f"{statistics.median(times):.0f}" if times else "-"
        figures = f"{statistics.mean(accuracies):.3%} | {spread} | {len(group)} | {min(accuracies):.2%}"
        better = against([run["wrong"] for run in group], first, writers)
        lines.append(f"| {recipe} | {weights} | {figures} | {better} | {seconds} | {short_name(machine)} |")
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
