"""What the docs say of committed files: a function for each name that stands between their markers."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import yaml
from dvc.repo import Repo

from benchmarks import bench, recipes, seeds, sweep
from benchmarks.machine import short_name
from src.pipeline.params import Params, load_params
from src.report.page import DATASETS, WEIGHTS, name_weights, table

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = ("dvc.yaml", "src/reader/dvc.yaml")
STARTS = {  # by the parameter's value
    "imagenet": WEIGHTS["imagenet_cntk"],
    "torchvision": WEIGHTS["imagenet1k_v1"],
    "random": WEIGHTS["random"],
    "resnet18-imagenet-cntk.safetensors": "the same, not rounded to eight bits",
}


def headline() -> str:
    train, test = read("metrics/train/metrics.json"), read("metrics/evaluate/metrics.json")["test"]
    sentences = [
        f"**{test['accuracy']:.2%} test accuracy**, {test['errors']:,} errors in {test['images']:,} images.",
        "This repository includes the results of one run with the default settings:",
        f"{train['step']} epoch{'s' * (train['step'] > 1)} on {train['training_images']:,} images of",
        f"{DATASETS[train['dataset']]}, from {name_weights(train['initial_weights'])}.",
    ]
    return " ".join(sentences)


def results() -> str:
    return next(part for part in text("metrics/report.md").split("\n\n") if part.startswith("| set |"))


def calibration() -> str:
    return f"{read('metrics/evaluate/metrics.json')['test']['calibration_error']:.2%}"


def standard_error() -> str:
    return f"{read('metrics/evaluate/metrics.json')['test']['standard_error']:.2%}"


def doubtful() -> str:
    """The report's sentence, which a run on the sample does not have."""
    return next((part for part in text("metrics/report.md").split("\n\n") if "people doubt" in part), "")


def outliers() -> str:
    rates = read("metrics/reader/outliers.json")
    return (
        f"In the committed run it flags {rates['true_positive_rate']:.1%} of drawings that are not digits, on average "
        f"over their kinds, and {rates['false_positive_rate']:.2%} of the test images."
    )


def answers() -> str:
    """How fast the page answers."""
    measured = read("benchmarks/demo.json")
    return (
        f"Half of the strokes are answered within {measured['median, ms']:.0f} ms of their end, and nine of ten within "
        f"{measured['90th percentile, ms']:.0f} ms (`python -m benchmarks.demo`, {measured['machine']})."
    )


def export() -> str:
    return f"{read('metrics/reader/export.json')['same_predictions']:.2%}"


def onnx_size() -> str:
    outs = yaml.safe_load(text("src/reader/dvc.lock"))["stages"]["export"]["outs"]
    return f"{next(out['size'] for out in outs if out['path'] == 'models/model.onnx') / 1e6:.0f} MB"


def duration() -> str:
    """How long the defaults take, by machine: the median of the trainings over seeds and the benchmark's whole one."""
    seconds = defaultdict(list)
    for machine, measured in read("benchmarks/results.json").items():
        if measured.get("defaults", {}).get("epochs") == defaults().epochs:
            seconds[machine].append(measured["defaults"]["seconds in all"])
    for (recipe, _, machine), group in seeds.by_kind(seed_runs(), defaults()).items():
        if recipe == "default":
            seconds[machine] += [run["seconds"] for run in group if run["seconds"] is not None]
    times = {machine: statistics.median(each) for machine, each in seconds.items() if each}
    listed = [f"{time / 60:.0f} min on {short_name(machine)}" for machine, time in times.items()]
    return f"The training takes {'; '.join(listed)}." if listed else "The training has not been timed yet."


def last_lines() -> str:
    """What ``make repro`` ends with, by the command itself."""
    someone = {"GIT_COMMITTER_NAME": "Someone", "GIT_COMMITTER_EMAIL": "someone@example.com"}  # so all print the same
    command = [sys.executable, "-m", "src.summary"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | someone, capture_output=True, text=True, check=True)
    return f"```text\n{done.stdout.strip()}\n```"


def stages() -> str:
    """A table of the core's stages."""
    rows = []
    with Repo(str(ROOT)) as repo:
        for stage in repo.stage.load_all("dvc.yaml"):
            link = f"[`src/{stage.name}`](../src/{stage.name})"
            cached = [f"`{out.def_path}`" for out in stage.outs if out.use_cache]
            in_git = [f"`{out.def_path}`" for out in stage.outs if not out.use_cache]
            rows.append((f"`{stage.name}`", stage.desc, link, ", ".join(cached) or "-", ", ".join(in_git) or "-"))
    return table(("stage", "what it makes", "source", "in DVC's cache", "in Git"), rows)


def parameters() -> str:
    """Tables of params.yaml: its sections, defaults and comments, and the stages that depend on each."""
    pipelines = [yaml.safe_load(text(name))["stages"] for name in PIPELINES if (ROOT / name).exists()]
    read_by = {name: of for pipeline in pipelines for name, of in pipeline.items()}
    lines = []
    for line in text("params.yaml").splitlines()[1:]:
        if section := re.fullmatch(r"# (.+)", line):
            header = table(("parameter", "default", "what it is", "stages that depend on it"), [])
            lines += ["", f"### {section[1]}", "", header]
        elif found := re.fullmatch(r"(\w+): (.+?) +# (.+)", line):
            name, default, meaning = found.groups()
            by = [f"`{stage}`" for stage, of in read_by.items() if name in of["params"] or f"${{{name}}}" in of["cmd"]]
            lines.append(f"| `{name}` | `{default}` | {meaning} | {', '.join(by) or '-'} |")
    return "\n".join(lines[1:])


def benchmark() -> str:
    return "\n".join(bench.table(read("benchmarks/results.json")))


def sweeps() -> str:
    return "\n".join(sweep.table(recipes.load_runs(ROOT / sweep.RESULTS_FILE), defaults()))


def several_seeds() -> str:
    return "\n".join(seeds.table(seed_runs(), defaults()))


def seeds_in_short() -> str:
    cells: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)  # by weights, for each recipe on each machine
    for (recipe, weights, machine), group in seeds.by_kind(seed_runs(), defaults()).items():
        accuracies = [run["test_accuracy"] for run in group]
        figures = f"{statistics.mean(accuracies):.2%} (worst of {len(group)}: {min(accuracies):.2%})"
        cells[recipe.removesuffix("-from-random"), machine][weights] = figures
    starts = list(dict.fromkeys(weights for row in cells.values() for weights in row))
    header = ("recipe", *(f"from {STARTS.get(weights, f'`{weights}`')}" for weights in starts))
    rows = [(f"`{recipe}`", *(row.get(weights, "-") for weights in starts)) for (recipe, _), row in cells.items()]
    return table(header, rows)


def pictures() -> str:
    from benchmarks.pictures import table as rows_of  # imports the reader, which the other facts need not wait for

    return "\n".join(rows_of(read("benchmarks/pictures.json")))


def reproductions() -> str:
    """A table of the records of ``make verify``, the latest first."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in ROOT.glob("reproductions/*-20*.json")]
    rows = []
    for record in sorted(records, key=lambda record: record["date"], reverse=True):
        differences = [f"{name} {value:g}" for name, value in record["differences"].items() if value]
        other = [f"{name} {old} → {new}" for name, (old, new) in record["other"].items()]
        first = [f"from `{path}` on" for _, path in record["differing"][:1]]
        rows.append(
            (
                record["date"],
                record["by"] or "-",
                f"{short_name(record['machine'])}, {record['system']}",
                f"{record['used']['python']}, {record['used']['torch']}",
                record["run"],
                " ".join([f"**{record['verdict']}**", *first]),
                ", ".join(differences) or "none",
                ", ".join(other) or "-",
                f"`{record['model_md5'][:7]}`",
            )
        )
    header = ("UTC", "by", "machine", "Python, PyTorch", "run", "verdict", "largest differences", "other", "model")
    return table(header, rows)


def seed_runs() -> list[dict]:
    return recipes.load_runs(ROOT / seeds.RESULTS_FILE)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def read(name: str) -> dict:
    return json.loads(text(name))


def defaults() -> Params:
    return load_params(ROOT / "params.yaml")


FACTS = {
    fact.__name__.replace("_", "-"): fact
    for fact in (
        answers, benchmark, calibration, doubtful, duration, export, headline, last_lines, onnx_size, outliers,
        parameters, pictures, reproductions, results, seeds_in_short, several_seeds, stages, standard_error, sweeps,
    )
}  # fmt: skip
