"""Seconds to an accuracy on the test set, each run a process of its own, its start included."""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.copies import project_copy, run_module
from benchmarks.recipes import fastest

SEEDS = (1, 2, 3, 4, 5)  # the recipes were chosen with others
PEER, PEER_SEEDS = "PyTorch's mnist example", (1, 3, 5)
GOAL = 0.99
TIMES = "seconds to 99%, median and each seed"
MEDIAN = "median"
EPOCH = re.compile(r"^epoch.* test (?:[\d.]+ |accuracy )([\d.]+)%")


def measure_times(
    common: Mapping[str, object], weights: list[str], known: Mapping[str, Mapping]
) -> Iterator[tuple[str, dict[str, object]]]:
    """Time the fastest recipes and what else a user might run, in turns.

    It takes an hour or more. So each group of rows is yielded with its title as more of it is known, and a run that
    is known is not made again.

    Args:
        common: parameters of all runs.
        weights: what the fastest recipe starts from.
        known: the groups of rows that an earlier call yielded on this machine.
    """
    rows = {name: dict(row) for name, row in known.get(TIMES, {}).items()}
    for seed in SEEDS:
        for name, overrides, command in contestants(seed, weights):
            row = rows.setdefault(name, {MEDIAN: None})
            if str(seed) not in row:
                with project_copy(common | overrides) as root:
                    row[str(seed)] = first_time(GOAL, run_module(root, command))
                row[MEDIAN] = median([seconds for key, seconds in row.items() if key != MEDIAN])
                yield TIMES, {name: {MEDIAN: row[MEDIAN]} | dict(sorted(row.items())) for name, row in rows.items()}


def contestants(seed: int, weights: list[str]) -> Iterator[tuple[str, dict[str, object], list[str]]]:
    """Yield what is timed with this seed: its name, its parameters, its module and arguments."""
    for start in weights:
        changes = fastest(start) | {"weights": start, "seed": seed}
        yield f"fastest recipe from {Path(start).name}", changes, ["src.train"]
    if seed in PEER_SEEDS:
        yield PEER, {"weights": "random"}, ["benchmarks.mnist_example", str(seed)]


def first_time(goal: float, lines: Iterable[tuple[float, str]]) -> float | None:
    """Find when an epoch's line first gives ``goal`` on the test set; None where none does."""
    return next((at for at, line in lines if (found := EPOCH.search(line)) and float(found[1]) >= 100 * goal), None)


def median(seconds: Iterable[float | None]) -> float | None:
    """Take the median, where a run that misses counts as infinite; None where half of them or more miss."""
    middle = statistics.median_high([float("inf") if one is None else one for one in seconds])
    return middle if middle < float("inf") else None
