"""Seconds to an accuracy on the test set, each run a process of its own, its start included."""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.copies import project_copy, run_module
from benchmarks.recipes import fastest

SEEDS = (1, 2, 3, 4, 5)  # the recipes were chosen with others
PEERS = {  # each with the command of a run; a seed follows it
    "PyTorch's mnist example": ["benchmarks.mnist_example"],
    "plain fine-tuning loop": ["benchmarks.fine_tuning"],
}
PEER_SEEDS = SEEDS[::2]
GOALS = (0.99, 0.995)
TIMES = "seconds to 99%"
BY_SEED = ", by seed"
EPOCH = re.compile(r"^epoch.* test (?:loss [\d.]+ )?accuracy ([\d.]+)%")


def measure_times(
    common: Mapping[str, object], weights: list[str], known: Mapping[str, Mapping]
) -> Iterator[tuple[str, dict[str, object]]]:
    """Time the fastest recipes and what else a user might run, in turns; then one whole training with the defaults.

    It takes an hour or more. So each group of rows is yielded with its title as more of it is known, and a run that
    is known is not made again.

    Args:
        common: parameters of all runs.
        weights: what the fastest recipe starts from; the peers and the defaults start from the first of them.
        known: the groups of rows that an earlier call yielded on this machine.
    """
    seconds = {
        name.removesuffix(BY_SEED): dict(runs) for name, runs in known.get(TIMES, {}).items() if name.endswith(BY_SEED)
    }
    for seed in SEEDS:
        for name, overrides, command in contestants(seed, weights):
            runs = seconds.setdefault(name, {})
            if str(seed) not in runs:
                with project_copy(common | overrides) as root:
                    runs[str(seed)] = first_time(GOALS[0], run_module(root, command))
                yield TIMES, with_ratios(seconds)
    if "defaults" not in known:
        yield "defaults", defaults(common | {"weights": weights[0]})


def contestants(seed: int, weights: list[str]) -> Iterator[tuple[str, dict[str, object], list[str]]]:
    """What is timed with this seed: its name, its parameters, its module and arguments."""
    for start in weights:
        yield (
            f"fastest recipe from {Path(start).name}",
            fastest(start) | {"weights": start, "seed": seed},
            ["src.train"],
        )
    for name, command in PEERS.items() if seed in PEER_SEEDS else ():
        yield name, {"weights": weights[0]}, [*command, str(seed)]


def first_time(goal: float, lines: Iterable[tuple[float, str]]) -> float | None:
    """When an epoch's line first gives ``goal`` on the test set; None where none does."""
    return next((at for at, line in lines if (found := EPOCH.search(line)) and float(found[1]) >= 100 * goal), None)


def with_ratios(seconds: Mapping[str, Mapping[str, float | None]]) -> dict[str, object]:
    """Add each median, and the fastest recipes' over the peers'. A run that misses counts as one that takes for ever.

    Median and ratio are None where half of the runs or more miss.
    """
    medians = {
        name: statistics.median_high([float("inf") if one is None else one for one in runs.values()])
        for name, runs in seconds.items()
    }
    rows: dict[str, object] = {name + BY_SEED: dict(sorted(runs.items())) for name, runs in seconds.items()}
    rows |= {f"{name}, median": finite(median) for name, median in medians.items()}
    for peer in [name for name in PEERS if name in medians]:
        ours = {name: median for name, median in medians.items() if name not in PEERS}
        rows |= {f"{name} against {peer}": ratio(median, medians[peer]) for name, median in ours.items()}
    return rows


def ratio(ours: float, theirs: float) -> float | None:
    """Ours over theirs; None where either misses."""
    return ours / theirs if max(ours, theirs) < float("inf") else None


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
