"""``make bench``: one table on the terminal, the same figures in ``benchmarks/results.json``.

What was measured on another machine stays in the file, in a column of its own.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from benchmarks.machine import machine_name
from benchmarks.rates import measure_rates
from benchmarks.to_accuracy import measure_times
from benchmarks.workflow import measure_set_up, measure_workflow
from src.images.dataset import load_manifest
from src.pipeline.files import write_json
from src.pipeline.params import Params, load_params
from src.resnet.machine import Machine, set_up_machine

RESULTS_FILE = Path("benchmarks/results.json")
GROUPS = ("rates", "times", "workflow", "set-up")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument(
        "--weights", nargs="+", help="what training starts from, a FILE or random; the peers take the first"
    )
    arguments, params = parser.parse_args(), load_params()
    machine = set_up_machine(params.device, params.precision, params.threads)
    known = load_results().get(machine_name(machine.describe()), {})
    for title, rows in measure(params, arguments.only, arguments.weights, known):
        save_rows(machine, title, rows)
    print("\n".join(table(load_results())))


def measure(
    params: Params, only: Sequence[str], weights: list[str] | None, known: Mapping[str, Mapping]
) -> Iterator[tuple[str, dict]]:
    """Measure the groups that are wanted; yield each table's title and rows as they are done.

    Of the times, what is ``known`` is kept: remove it from the file to have it measured again.
    """
    manifest, common = load_manifest(), {"precision": params.precision}
    starts = weights or list(dict.fromkeys([params.weights if manifest.weights_file else "random", "random"]))
    starts = [str(Path(start).resolve()) if Path(start).is_file() else start for start in starts]
    has_mnist = manifest.dataset == "mnist"  # the sample is too small for an accuracy of 99%
    groups = {
        "rates": measure_rates(params, manifest),
        "times": measure_times(common, starts, known) if has_mnist else (),
        "workflow": measure_workflow(common),
        "set-up": measure_set_up(),
    }
    return chain.from_iterable(groups[group] for group in only)


def load_results() -> dict[str, dict]:
    """Read what was measured so far, here or on another machine: by machine, title and row."""
    return json.loads(RESULTS_FILE.read_text(encoding="utf-8")) if RESULTS_FILE.exists() else {}


def save_rows(machine: Machine, title: str, rows: Mapping[str, object]) -> None:
    """Write what was measured here into the file, beside all else that stands there."""
    results, name = load_results(), machine_name(machine.describe())
    results.setdefault(name, {})[title] = rows
    write_json(RESULTS_FILE, results)
    print(f"bench: {title}, on {name}", flush=True)


def table(columns: Mapping[str, Mapping[str, Mapping]]) -> list[str]:
    """Format a Markdown table: a row for each figure, a column for each machine."""
    names = list(columns)
    lines = [f"| what | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for title in dict.fromkeys(chain.from_iterable(columns.values())):
        groups = [column.get(title, {}) for column in columns.values()]
        for row in dict.fromkeys(chain.from_iterable(groups)):
            cells = [text(group[row]) if row in group else "-" for group in groups]
            lines.append(f"| {title}: {row} | {' | '.join(cells)} |")
    return lines


def text(value: object) -> str:
    """Format a figure as one reads it."""
    if isinstance(value, dict):
        return ", ".join(map(text, value.values()))
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return "not reached" if value is None else str(value)
