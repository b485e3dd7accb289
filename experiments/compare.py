"""``make compare``: the experiments of the last commit in the columns that people choose by, the best first."""

import sys
import textwrap
from collections.abc import Iterable, Mapping
from itertools import zip_longest

import dvc.api

from src.pipeline.params import PARAMS_FILE, Params
from src.pipeline.process import exit_code

METRICS = {"test.accuracy": ".2%", "test.errors": ".0f", "test.loss": ".5f", "validation.loss": ".5f"}
HEADER = ("experiment", "test accuracy", "errors", "test loss", "validation loss", "parameters that differ")
WIDTHS = (24, 8, 6, 7, 10, 35)  # of the columns; with two spaces between them, a line has 100 characters at most
ALIGN = "<>>>><"


def main() -> None:
    print("\n".join(table(load_rows())))


def load_rows() -> list[dict]:
    """Read the last commit and those of its experiments that are through, as rows of `dvc.api.exp_show`.

    For an experiment that waits, runs or has failed DVC shows the last commit's metrics.

    Returns:
        The last commit first; None for a value that is not there.
    """
    rows = [row for row in dvc.api.exp_show() if row["rev"] != "workspace" and row["State"] in (None, "Success")]
    return [{key: None if value == "None" else value for key, value in row.items()} for row in rows]


def table(rows: Iterable[Mapping]) -> list[str]:
    """Format `load_rows`, the lowest validation loss first, in lines of 100 characters at most."""
    baseline, *_ = rows
    lines = wrapped(HEADER)
    for row in sorted(rows, key=lambda row: (row.get("validation.loss") is None, row.get("validation.loss"))):
        name = f"{row['rev']} (baseline)" if row is baseline else row["Experiment"] or row["rev"]
        metrics = [format(row[key], spec) if row.get(key) is not None else "-" for key, spec in METRICS.items()]
        lines += wrapped((name, *metrics, changes(parameters(row), parameters(baseline))))
    return lines


def parameters(row: Mapping) -> dict[str, object]:
    """The parameters of a row; DVC takes the longer name where a metric has the short one."""
    return {name: row.get(name, row.get(f"{PARAMS_FILE}:{name}")) for name in Params.model_fields}


def changes(values: Mapping[str, object], others: Mapping[str, object]) -> str:
    """Name the values that differ from the others; a fraction in five digits."""
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items() if value != others.get(name))


def shown(value: object) -> str:
    """Format a parameter's value: DVC's table has each number as a float."""
    return f"{value:{'.5g' if value < 1 else '.10g'}}" if isinstance(value, float) else str(value)


def wrapped(cells: Iterable[str]) -> list[str]:
    """Lay the cells of a row side by side, each in as many lines as it needs."""
    columns = [textwrap.wrap(cell, width) for cell, width in zip(cells, WIDTHS, strict=True)]
    lines = zip_longest(*columns, fillvalue="")
    return [
        "  ".join(f"{part:{align}{width}}" for part, align, width in zip(line, ALIGN, WIDTHS, strict=True)).rstrip()
        for line in lines
    ]


if __name__ == "__main__":
    sys.exit(exit_code(main))
