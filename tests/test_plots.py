"""DVC's plots: they hold what the run wrote, and are compared between commits."""

import csv
import json

import pytest
from helpers.project import Project

from src.pipeline.paths import SETS

PICTURES = ("learning_curves", "confusion_matrix", "mistakes", "reliability")
CURVES = [f"metrics/train/plots/metrics/{name}/{metric}.tsv" for name in SETS for metric in ("loss", "accuracy")]
TABLES = [f"metrics/evaluate/{name}.csv" for name in ("predictions", "classes", "calibration")]


def read(project: Project, file: str) -> list[dict[str, str]]:
    """The rows of a table."""
    return list(csv.DictReader(project.read(file).splitlines(), delimiter="\t" if "tsv" in file else ","))


@pytest.fixture(scope="module")
def plots(longer_once: Project) -> dict[str, list[dict[str, str]]]:
    """For each plot, by its name, the rows that it draws; for a picture none."""
    done = longer_once.run("dvc", "plots", "show", "--json")
    shown = json.loads(done.stdout)
    assert "failed" not in done.stderr.lower()
    assert "errors" not in shown
    return {
        name: parts[0]["content"]["data"]["values"] if parts[0]["type"] == "vega" else []
        for name, parts in shown["data"].items()
    }


@pytest.mark.parametrize("file", [*CURVES, *TABLES])
def test_a_plot_draws_what_the_run_wrote(plots, longer_once, file):
    written = read(longer_once, file)

    drawn = [{column: row[column] for column in written[0]} for row in plots[file]]

    assert drawn == written
    assert len(written) >= 2


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_pictures_are_shown_and_one_plot_has_the_curves_of_all_sets(plots, longer_once, metric):
    assert {*(f"metrics/report/{name}.png" for name in PICTURES), "Learning rate by epoch"} <= set(plots)

    drawn = {(row["filename"], row["step"], row[metric]) for row in plots[f"{metric.title()} by epoch"]}

    assert drawn == {
        (f"{name}/{metric}.tsv", row["step"], row[metric])
        for name in SETS
        for row in read(longer_once, f"metrics/train/plots/metrics/{name}/{metric}.tsv")
    }
