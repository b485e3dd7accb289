"""What the docs say of committed files: a function for each name that stands between their markers."""

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks import bench, recipes, seeds, sweep
from benchmarks.machine import short_name
from benchmarks.to_accuracy import MEDIAN, PEER, TIMES
from src.pipeline.environment import SPIN_COUNT
from src.pipeline.params import Params, load_params
from src.report.page import DATASETS, name_weights, table

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = ("dvc.yaml", "src/reader/dvc.yaml")
NUMBERS = {1: "one", 2: "two", 4: "four", 8: "eight"}
UNSET = "GOMP_SPINCOUNT unset"
TUTORIAL = "the tutorial recipe at 224 px"
MAIN_ROWS = (  # the tables of the benchmark that most readers look for
    "training with the defaults",
    TUTORIAL,
)


def price() -> str:
    """The README's first figure: the committed accuracy, and the shortest time that the defaults took."""
    accuracy = f"**{read('metrics/evaluate/metrics.json')['test']['accuracy']:.2%} test accuracy"
    if not (times := durations()):
        return f"{accuracy}**."
    machine = min(times, key=times.__getitem__)
    processor, *used = machine.split(", ")
    threads = next(int(part.split()[0]) for part in used if "thread" in part)
    kind = ", ".join(part for part in used if part != "cpu" and "thread" not in part and not part.startswith("torch "))
    cores = f"{NUMBERS.get(threads, threads)} CPU core{'s' * (threads > 1)}"
    return f"{accuracy} in {times[machine] / 60:.0f} minutes on {cores}** ({processor}, {kind})."


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


def durations() -> dict[str, float]:
    """How many seconds the defaults take, by machine: the median of the trainings over seeds."""
    seconds = defaultdict(list)
    for (recipe, _, machine), group in seeds.by_kind(seed_runs(), defaults()).items():
        if recipe == "default":
            seconds[machine] += [run["seconds"] for run in group if run["seconds"] is not None]
    return {machine: statistics.median(each) for machine, each in seconds.items() if each}


def duration() -> str:
    listed = [f"{time / 60:.0f} min on {short_name(machine)}" for machine, time in durations().items()]
    return f"Training takes {'; '.join(listed)}." if listed else "The training has not been timed yet."


def parameters() -> str:
    """A table of params.yaml: its sections, defaults and comments, and the stages that depend on each."""
    pipelines = [yaml.safe_load(text(name))["stages"] for name in PIPELINES if (ROOT / name).exists()]
    read_by = {name: of for pipeline in pipelines for name, of in pipeline.items()}
    rows = []
    for line in text("params.yaml").splitlines()[1:]:
        if section := re.fullmatch(r"# (.+)", line):
            rows.append((f"**{section[1]}**", "", "", ""))
        elif found := re.fullmatch(r"(\w+): (.+?) +# (.+)", line):
            name, default, meaning = found.groups()
            by = [f"`{stage}`" for stage, of in read_by.items() if name in of["params"] or f"${{{name}}}" in of["cmd"]]
            rows.append((f"`{name}`", f"`{default}`", meaning, ", ".join(by) or "-"))
    return table(("parameter", "default", "what it is", "stages that depend on it"), rows)


def benchmark() -> str:
    return "\n".join(bench.table(measured(lambda title: title in MAIN_ROWS)))


def benchmark_rest() -> str:
    columns = measured(lambda title: title not in MAIN_ROWS)
    spin = f"GOMP_SPINCOUNT {SPIN_COUNT}"  # of the values that were tried, none and the one that is set
    for titles in columns.values():
        for title, rows in titles.items():
            wanted = {name: row for name, row in rows.items() if "SPINCOUNT" not in name or name in (spin, UNSET)}
            titles[title] = wanted
    return "\n".join(bench.table(columns))


def speedups() -> str:
    """How many times as fast training is as what a reader may compare it with, where both were measured."""
    loops, races = [], []
    for machine, titles in read("benchmarks/results.json").items():
        rates, times = titles.get(TUTORIAL, {}), titles.get(TIMES, {})
        theirs = rates.get("the tutorial's loop, fp32, images/s")
        ours = {name.split(", ")[1]: rate for name, rate in rates.items() if name.startswith("ours") and theirs}
        if ours:
            listed = [f"{rate / theirs:.1f} times as fast in {name}" for name, rate in ours.items()]
            loops.append(f"{' and '.join(listed)} on {short_name(machine)}")
        recipe, peer = (times.get(name, {}).get(MEDIAN) for name in ("fastest recipe from random", PEER))
        if recipe and peer:
            races.append(f"{peer / recipe:.1f} times as fast on {short_name(machine)}")
    lines = [f"- Against the tutorial's loop in fp32 at 224 px, ours is {'; '.join(loops)}."] * bool(loops)
    race = f"- Against {PEER}, the fastest recipe from random weights reaches 99% {'; '.join(races)}."
    return "\n".join(lines + [race] * bool(races))


def measured(wanted: Callable[[str], bool]) -> dict[str, dict]:
    """Read the benchmark's tables whose titles are wanted, by machine."""
    results = read("benchmarks/results.json")
    return {name: {title: rows for title, rows in of.items() if wanted(title)} for name, of in results.items()}


def sweeps() -> str:
    return "\n".join(sweep.table(recipes.load_runs(ROOT / sweep.RESULTS_FILE), defaults()))


def several_seeds() -> str:
    return "\n".join(seeds.table(seed_runs(), defaults()))


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
        answers, benchmark, benchmark_rest, doubtful, duration, export, headline, onnx_size, outliers,
        parameters, pictures, price, reproductions, results, several_seeds, speedups,
        standard_error, sweeps,
    )
}  # fmt: skip
