"""``make bench``: one table on the terminal, the same figures in ``benchmarks/results.json``.

On a CPU that has more than AVX2 it measures twice: as it is, and with the rest masked, for the readers whose processor
has no more. What was measured on another machine stays in the file, in columns of its own.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping

import torch

from benchmarks.column import add_arguments, load_results
from src.resnet.machine import set_up_machine
from src.pipeline.params import load_params
from src.pipeline.process import exit_on_user_error

MASKS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.parse_args()
    for masks in ({}, MASKS) if has_more_than_avx2() else ({},):
        command = [sys.executable, "-m", "benchmarks.column", *sys.argv[1:]]
        done = subprocess.run(command, check=False, env=os.environ | masks)
        if done.returncode != 0:
            sys.exit(done.returncode)  # it has said why
    print("\n".join(table(load_results()["columns"])))


def has_more_than_avx2() -> bool:
    """Whether training runs on this CPU with instructions that many do not have."""
    params = load_params()
    machine = set_up_machine(params.device, params.precision, params.threads)
    return machine.device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def table(columns: Mapping[str, Mapping[str, Mapping]]) -> list[str]:
    """A Markdown table: a row for each figure, a column for each machine."""
    names = list(columns)
    lines = [f"| what | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    rows = dict.fromkeys((title, row) for column in columns.values() for title, of in column.items() for row in of)
    for title, row in rows:
        cells = [text(column[title][row]) if row in column.get(title, {}) else "-" for column in columns.values()]
        lines.append(f"| {title}: {row} | {' | '.join(cells)} |")
    return lines


def text(value: object) -> str:
    """A figure as one reads it."""
    if isinstance(value, dict):
        return ", ".join(map(text, value.values()))
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return "not reached" if value is None else str(value)


if __name__ == "__main__":
    main()
