"""The recipes that are measured, and the files of what was measured: a run a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from src.pipeline.files import write_file
from src.pipeline.params import Params

HELD_OUT = 1 / 6  # of the training images in benchmarks/sweep.json: 10,000
SHORT = {"batch_size": 192, "augment": False, "label_smoothing": 0.1, "validation_size": 0.0}
RECIPES: dict[str, dict[str, object]] = {  # what each changes of params.yaml
    "default": {},
    "accuracy": {"tta": 5},
    # Few images, just enough for 99%, and for 99.5%
    "fastest": {"epochs": 0.5, "lr": 0.003} | SHORT,
    "fastest-from-random": {"epochs": 1, "lr": 0.004, "optimizer": "adamw", "weight_decay": 0.1} | SHORT,
    "fast": {"epochs": 3, "validation_size": 0.0},
}
NO_PART_OF_A_RECIPE = {
    # A result names these, or its machine, by themselves
    "device",
    "seed",
    "threads",
    "weights",
    # No plain accuracy depends on these; a recipe of several copies names them
    "checkpoint_minutes",
    "launcher",
    "offline_fallback",
    "tta",
}


def fastest(weights: str) -> dict[str, object]:
    """Choose the fastest recipe from these weights, a value of the parameter."""
    return RECIPES["fastest-from-random" if weights == "random" else "fastest"]


def parameters(params: Params, overrides: Mapping[str, object]) -> dict[str, object]:
    """List all that a recipe is, with these defaults: a result is of them, whatever the defaults become."""
    return params.model_dump(exclude=NO_PART_OF_A_RECIPE) | overrides


def load_runs(file: Path) -> list[dict]:
    """Read what was measured so far, each run with all its ``parameters``; nothing where there is no such file."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def save_runs(file: Path, runs: Iterable[Mapping]) -> None:
    """Write runs for `load_runs`, each on a line."""
    lines = ",\n".join(map(json.dumps, runs))
    write_file(file, f"[\n{lines}\n]\n".encode())
