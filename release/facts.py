"""What the docs say of committed files: a function for each name that stands between their markers."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from src.pipeline.params import Params, load_params
from src.report.page import DATASETS, not_downloaded, table

ROOT = Path(__file__).resolve().parent.parent
NOT_TIMED = "How long the training takes has not been measured yet."
NO_SEEDS = "No run over several seeds is committed yet."
WEIGHTS = {
    "random": "random weights",
    "imagenet1k_v1": "torchvision's ImageNet weights",
    "imagenet": "torchvision's ImageNet weights",  # as benchmarks/seeds.json has it
    "resnet18-imagenet-cntk.safetensors": "an ImageNet ResNet-18 of another training",
}


def headline() -> str:
    train, test = read("metrics/train/metrics.json"), read("metrics/evaluate/metrics.json")["test"]
    weights = WEIGHTS.get(train["initial_weights"], f"the weights in `{train['initial_weights']}`")
    missing = not_downloaded(defaults(), train)
    sentences = [
        f"**{test['accuracy']:.2%} test accuracy**, {test['errors']:,} errors in {test['images']:,} images.",
        f"The committed run: the defaults, {train['step']} epoch{'s' * (train['step'] > 1)} on",
        f"{train['training_images']:,} images of {DATASETS[train['dataset']]}, from {weights}.",
        *([f"{missing}, which the defaults ask for, could not be downloaded where it ran."] if missing else []),
    ]
    return " ".join(sentences)


def results() -> str:
    measured = read("metrics/train/metrics.json") | read("metrics/evaluate/metrics.json")
    rows = [
        (name, f"{measured[name]['loss']:.4f}", f"{measured[name]['accuracy']:.2%}")
        for name in ("train", "validation", "test")
        if name in measured
    ]
    return table(("set", "mean loss per image", "accuracy"), rows)


def calibration() -> str:
    return f"{read('metrics/evaluate/metrics.json')['test']['calibration_error']:.2%}"


def outliers() -> str:
    measured = read("metrics/outliers/metrics.json")["outliers"]
    return (
        f"Of the committed run's test images, {measured['false_positive_rate']:.2%} are called unlike any digit. "
        f"Of drawings of what is no digit, {measured['true_positive_rate']:.1%} are, on average over their kinds. "
        "The head was fitted to other drawings of the same kinds. "
        "The threshold is set on the validation images. Its share was lowered once, after a look at the figure of the "
        "test images."
    )


def answers() -> str:
    """How fast the page answers."""
    measured = read("benchmarks/demo.json")
    one, many = measured["one client"], measured["10 clients"]
    return (
        f"Half of the answers come within {one['median, ms']:.0f} ms, and within {many['median, ms']:.0f} ms where ten "
        f"clients ask at a time (`python -m benchmarks.demo`, {measured['machine']})."
    )


def export() -> str:
    share = read("metrics/export/metrics.json")["onnx"]["same_predictions"]
    return f"{share:.2%} of the test images get the class that PyTorch gives"


def disk() -> str:
    return re.search(r"takes ([\d.]+ GB) in \.venv", text(".ci/setup"))[1]


def download() -> str:
    """What setting up downloads, on the last machine where that was measured."""
    *_, measured = (each["set-up"] for each in read("benchmarks/results.json")["columns"].values() if "set-up" in each)
    return f"{measured['downloaded, MiB'] * 2**20 / 1e9:.1f} GB"


def duration() -> str:
    """How long the defaults take: trainings over seeds with them, a whole one of the benchmark's, or its rate.

    And the rest of the workflow, where it was measured on that machine.
    """
    epochs, images = defaults().epochs, read("metrics/train/metrics.json")["training_images"]
    times, rest = {}, {}
    for machine, measured in read("benchmarks/results.json")["columns"].items():
        if "masked" in machine:
            continue  # nobody's own machine
        if workflow := measured.get("dvc repro, seconds"):
            rest[machine] = f", and the rest of the workflow {workflow['all but the training']:.0f} s besides downloads"
        if measured.get("defaults", {}).get("epochs") == epochs:
            times[machine] = f"{measured['defaults']['seconds in all'] / 60:.0f} min"
        elif rate := measured.get("training with the defaults", {}).get("28 px, images/s"):
            times[machine] = f"about {epochs * images / rate / 60:.0f} min, by the rate of a few steps,"
    times |= {machine: f"{seconds / 60:.0f} min" for machine, seconds in seconds_of_the_defaults().items()}
    listed = "; ".join(f"{time} on {in_short(machine)}{rest.get(machine, '')}" for machine, time in times.items())
    return f"The training takes {listed}." if times else NOT_TIMED


def in_short(machine: str) -> str:
    """A machine's name for a sentence: "AMD EPYC, cpu, float32, 2 threads, AVX2, torch 2.15" without the last part."""
    processor, *parts = machine.split(", ")
    told = [part for part in parts if part != "cpu" and not part.startswith("torch ")]
    return f"{processor} ({', '.join(told)})" if told else processor


def seconds_of_the_defaults() -> dict[str, float]:
    """The median seconds of the trainings with today's defaults over seeds, from whatever weights, by machine."""
    from benchmarks.seeds import by_kind

    seconds = defaultdict(list)
    for (recipe, _, machine), group in by_kind(seed_runs(), defaults()).items():
        if recipe == "default":
            seconds[machine] += [run["seconds"] for run in group if run["seconds"] is not None]
    return {machine: statistics.median(each) for machine, each in seconds.items() if each}


def last_lines() -> str:
    """What ``make repro`` ends with, by the command itself."""
    return f"```text\n{run(sys.executable, '-m', 'src.summary').strip()}\n```"


def graph() -> str:
    return f"```mermaid\n{run(sys.executable, '-m', 'dvc', 'dag', '--mermaid').strip()}\n```"


def stages() -> str:
    rows = []
    for name, stage in yaml.safe_load(text("dvc.yaml"))["stages"].items():
        outs = [out if isinstance(out, dict) else {out: {}} for out in stage.get("outs", [])]
        kept = {path: (settings or {}).get("cache", True) for out in outs for path, settings in out.items()}
        kept |= {path: False for kind in ("metrics", "plots") for out in stage.get(kind, []) for path in out}
        cached = [f"`{path}`" for path, cache in kept.items() if cache]
        in_git = [f"`{path}`" for path, cache in kept.items() if not cache]
        link = f"[`src/{name}`](../src/{name})"
        rows.append((f"`{name}`", stage["desc"], link, ", ".join(cached) or "-", ", ".join(in_git) or "-"))
    return table(("stage", "what it makes", "source", "in DVC's cache", "in Git"), rows)


def parameters() -> str:
    """Tables of params.yaml: its sections, defaults and comments, and the stages that depend on each."""
    stages = yaml.safe_load(text("dvc.yaml"))["stages"]
    lines = []
    for line in text("params.yaml").splitlines()[1:]:
        if section := re.fullmatch(r"# (.+)", line):
            header = table(("parameter", "default", "what it is", "stages that depend on it"), [])
            lines += ["", f"### {section[1]}", "", header]
        elif found := re.fullmatch(r"(\w+): (.+?) +# (.+)", line):
            name, default, meaning = found.groups()
            read_by = [
                f"`{stage}`" for stage, of in stages.items() if name in of["params"] or f"${{{name}}}" in of["cmd"]
            ]
            lines.append(f"| `{name}` | `{default}` | {meaning} | {', '.join(read_by) or '-'} |")
    return "\n".join(lines[1:])


def benchmark() -> str:
    from benchmarks.__main__ import table as rows_of  # imports torch, which the other facts need not wait for

    return "\n".join(rows_of(read("benchmarks/results.json")["columns"]))


def sweep() -> str:
    from benchmarks.sweep import table as rows_of

    return "\n".join(rows_of(read("benchmarks/sweep.json")["runs"], defaults()))


def seeds() -> str:
    from benchmarks.seeds import table as rows_of

    return "\n".join(rows_of(seed_runs(), defaults())) if seed_runs() else NO_SEEDS


def seeds_in_short() -> str:
    from benchmarks.seeds import by_kind

    cells: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)  # by weights, for each recipe on each machine
    for (recipe, weights, machine), group in by_kind(seed_runs(), defaults()).items():
        accuracies = [run["test_accuracy"] for run in group]
        figures = f"{statistics.mean(accuracies):.2%} (worst of {len(group)}: {min(accuracies):.2%})"
        cells[recipe.removesuffix("-from-random"), machine][weights] = figures
    starts = list(dict.fromkeys(weights for row in cells.values() for weights in row))
    header = ("recipe", *(f"from {WEIGHTS.get(weights, f'`{weights}`')}" for weights in starts))
    rows = [(f"`{recipe}`", *(row.get(weights, "-") for weights in starts)) for (recipe, _), row in cells.items()]
    return table(header, rows) if rows else NO_SEEDS


def seed_runs() -> list[dict]:
    return read("benchmarks/seeds.json")["runs"] if there("benchmarks/seeds.json") else []


def pictures() -> str:
    from benchmarks.pictures import table as rows_of

    return "\n".join(rows_of(read("benchmarks/pictures.json")))


def formats() -> str:
    from src.reader.picture import FORMATS

    *names, last = FORMATS
    return f"{', '.join(names)} and {last}"


def onnx_size() -> str:
    stage = yaml.safe_load(text("dvc.lock"))["stages"]["export"]
    return f"{next(out['size'] for out in stage['outs'] if out['path'] == 'models/model.onnx') / 1e6:.0f} MB"


def citation() -> str:
    cited = yaml.safe_load(text("CITATION.cff"))
    authors = ", ".join(author["name"] for author in cited["authors"])
    return (
        f"{authors}. *{cited['title']}*. [`CITATION.cff`](CITATION.cff) has the fields, and the papers to cite with it."
    )


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def read(name: str) -> dict:
    return json.loads(text(name))


def defaults() -> Params:
    return load_params(ROOT / "params.yaml")


def there(name: str) -> bool:
    return (ROOT / name).exists()


def run(*command: str) -> str:
    someone = {"GIT_COMMITTER_NAME": "Someone", "GIT_COMMITTER_EMAIL": "someone@example.com"}  # so all print the same
    done = subprocess.run(command, cwd=ROOT, env=os.environ | someone, capture_output=True, text=True, check=True)
    return done.stdout


def names(functions: Iterable[Callable[[], str]]) -> dict[str, Callable[[], str]]:
    return {function.__name__.replace("_", "-"): function for function in functions}


FACTS = names(
    (
        headline, results, calibration, outliers, answers, export, disk, download, duration, last_lines, graph, stages,
        parameters, benchmark, sweep, seeds, seeds_in_short, pictures, formats, onnx_size, citation,
    )
)  # fmt: skip
