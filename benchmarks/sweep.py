"""``python -m benchmarks.sweep``: recipes compared on a validation set of 10,000 images.

The test set has no say: of what `train` measures, only the validation set's figures are read. Each result is written to
``benchmarks/sweep.json`` as it comes; what is there is not run again. It wants the full MNIST in ``data``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.machine import machine_name
from benchmarks.recipes import NO_PART_OF_A_RECIPE, changes, parameters
from src.mnist.manifest import MANIFEST_FILE, load_manifest
from src.pipeline.errors import UserError, exit_on_user_error
from src.pipeline.files import read_columns, write_json
from src.pipeline.machine import set_up_machine
from src.pipeline.params import PARAMS_FILE, Params, load_params
from src.pipeline.results import TRAIN_CURVES_DIR

RESULTS_FILE = Path("benchmarks/sweep.json")
HELD_OUT = 1 / 6  # of the training images: 10,000


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("recipes", nargs="*", metavar="NAME=VALUE,...", help="what each recipe changes of params.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments, params, manifest = parser.parse_args(), load_params(), load_manifest()
    if manifest.dataset != params.dataset:
        raise UserError(
            f"data holds {manifest.dataset}, and params.yaml asks for {params.dataset}: run `dvc repro download`"
        )
    results = json.loads(RESULTS_FILE.read_text(encoding="utf-8")) if RESULTS_FILE.exists() else {"runs": []}
    for text in arguments.recipes:
        overrides = dict(pair.split("=", 1) for pair in text.split(","))
        overrides = {name: YAML(typ="safe").load(value) for name, value in overrides.items()}
        if apart := overrides.keys() & {"dataset", *NO_PART_OF_A_RECIPE}:
            raise UserError(f"{text}: {', '.join(sorted(apart))} can't be swept; set it in params.yaml")
        recipe = parameters(params, {"validation_size": HELD_OUT, **overrides})
        for seed in arguments.seeds:
            key = {"parameters": recipe, "seed": seed, "weights": manifest.initial_weights}
            if not any(run.items() >= key.items() for run in results["runs"]):
                results["runs"].append(key | measure(params, recipe, seed))
                write_json(RESULTS_FILE, results)
    print("\n".join(table(results["runs"], params)))


def measure(params: Params, recipe: Mapping[str, object], seed: int) -> dict[str, object]:
    """Train in a folder of its own, on the data that lies in the current one."""
    values = params.model_dump() | recipe | {"seed": seed}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("src", MANIFEST_FILE.parent):
            (folder / part).symlink_to(Path(part).resolve())
        with (folder / PARAMS_FILE).open("w", encoding="utf-8") as file:
            YAML().dump(values, file)
        began = time.monotonic()
        environment = os.environ | {"PYTHONPATH": name}
        done = subprocess.run([sys.executable, "-m", "src.train"], cwd=folder, check=False, env=environment)
        if done.returncode != 0:
            sys.exit(done.returncode)  # it has said why
        seconds = round(time.monotonic() - began)
        curves = {
            metric: list(map(float, read_columns(folder / TRAIN_CURVES_DIR / "validation" / f"{metric}.tsv")[metric]))
            for metric in ("loss", "accuracy")
        }
    machine = machine_name(set_up_machine(params.device, str(recipe["precision"]), params.threads))
    return {**curves, "seconds": seconds, "machine": machine}


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
