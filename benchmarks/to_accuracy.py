"""Seconds to an accuracy on the test set, each run a process of its own, its start included."""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.copies import project_copy, run_module
from benchmarks.recipes import fastest

SEEDS = (1, 2, 3, 4, 5)  # the recipes were chosen with seed 0
PEERS = {  # each with the command of a run; a seed follows it
    "PyTorch's mnist example": ["benchmarks.mnist_example"],
    "plain fine-tuning loop": ["benchmarks.fine_tuning"],
}
PEER_SEEDS = SEEDS[::2]
GOALS = (0.99, 0.995)
EPOCH = re.compile(r"^epoch.* test (?:loss [\d.]+ )?accuracy ([\d.]+)%")


def measure_times(common: Mapping[str, object], weights: list[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """Time the fastest recipes and what else a user might run, in turns; then one whole training with the defaults.

    Yields each group of rows with its title, the first one again as more of it is known.

    Args:
        common: parameters of all runs.
        weights: what the fastest recipe starts from; the peers and the defaults start from the first of them.
    """
    seconds: dict[str, list[float | None]] = {}
    for seed in SEEDS:
        for start in weights:
            with project_copy(common | fastest(start) | {"weights": start, "seed": seed}) as root:
                reached = first_time(GOALS[0], run_module(root, ["src.train"]))
            seconds.setdefault(f"fastest recipe from {Path(start).name}", []).append(reached)
            yield "seconds to 99%", with_ratios(seconds)
        for name, command in PEERS.items() if seed in PEER_SEEDS else ():
            with project_copy(common | {"weights": weights[0]}) as root:
                reached = first_time(GOALS[0], run_module(root, [*command, str(seed)]))
            seconds.setdefault(name, []).append(reached)
            yield "seconds to 99%", with_ratios(seconds)
    yield "defaults", defaults(common | {"weights": weights[0]})


def first_time(goal: float, lines: Iterable[tuple[float, str]]) -> float | None:
    """When an epoch's line first gives ``goal`` on the test set; None where none does."""
    return next((at for at, line in lines if (found := EPOCH.search(line)) and float(found[1]) >= 100 * goal), None)


def with_ratios(seconds: Mapping[str, list[float | None]]) -> dict[str, object]:
    """Add each median, and the fastest recipes' over the peers'. A run that misses counts as one that takes for ever.

    Median and ratio are None where half of the runs or more miss.
    """
    medians = {
        name: statistics.median_high([float("inf") if one is None else one for one in runs])
        for name, runs in seconds.items()
    }
    rows: dict[str, object] = {f"{name}, by seed": runs for name, runs in seconds.items()}
    rows |= {f"{name}, median": finite(median) for name, median in medians.items()}
    for peer in [name for name in PEERS if name in medians]:
        ours = {name: median for name, median in medians.items() if name not in PEERS}
        rows |= {f"{name} against the {peer}": finite(median / medians[peer]) for name, median in ours.items()}
    return rows


def finite(number: float) -> float | None:
    """The number; None for what is none, or has no end."""
    return number if number < float("inf") else None


def defaults(overrides: Mapping[str, object]) -> dict[str, object]:
    """A whole training with the defaults, seed 0: when it passes each goal, and when it ends."""
    with project_copy(overrides) as root:
        lines = list(run_module(root, ["src.train"]))
    return {
        "start from": Path(str(overrides["weights"])).name,
        "epochs": sum(line.startswith("epoch ") for _, line in lines),
        **{f"seconds to {goal:.1%}": first_time(goal, lines) for goal in GOALS},
        "seconds in all": lines[-1][0],
    }
