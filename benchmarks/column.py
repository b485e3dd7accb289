"""One column of the benchmark: what is measured with one set of instructions, written as it comes.

usage: python -m benchmarks.column [--only GROUP ...] [--weights WEIGHTS ...]
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
from src.mnist.dataset import load_manifest
from src.pipeline.files import write_json
from src.resnet.machine import set_up_machine
from src.pipeline.params import Params, load_params
from src.pipeline.process import exit_on_user_error

RESULTS_FILE = Path("benchmarks/results.json")
GROUPS = ("rates", "times", "workflow", "set-up")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that the whole benchmark takes as well."""
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument(
        "--weights", nargs="+", help="what training starts from, a FILE or random; the peers take the first"
    )


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.column", description=__doc__.partition("\n")[0])
    add_arguments(parser)
    arguments, params = parser.parse_args(), load_params()
    machine = set_up_machine(params.device, params.precision, params.threads)
    name = machine_name(machine)
    known = load_results()["columns"].get(name, {})
    for title, rows in measure(params, arguments.only, arguments.weights, known):
        results = load_results()
        results["columns"].setdefault(name, {})[title] = rows
        write_json(RESULTS_FILE, results)
        print(f"bench: {title}, on {name}", flush=True)


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
    """Read what was measured so far, here or on another machine."""
    return json.loads(RESULTS_FILE.read_text(encoding="utf-8")) if RESULTS_FILE.exists() else {"columns": {}}


if __name__ == "__main__":
    main()
