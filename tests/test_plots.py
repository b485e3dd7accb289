"""DVC's plots: they hold what the run wrote, and are compared between commits."""

import csv
import json

import pytest
from helpers.project import Project

from src.pipeline.paths import SETS

PICTURES = ("learning_curves", "confusion_matrix", "mistakes", "reliability")
CURVES = [f"metrics/train/plots/metrics/{name}/{metric}.tsv" for name in SETS for metric in ("loss", "accuracy")]
TABLES = [f"metrics/evaluate/{name}.csv" for name in ("predictions", "classes", "calibration")]


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
    written = list(csv.DictReader(longer_once.read(file).splitlines(), delimiter="\t" if "tsv" in file else ","))

    drawn = [{column: row[column] for column in written[0]} for row in plots[file]]

    assert drawn == written
    assert len(written) >= 2


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_pictures_are_shown_and_one_plot_has_the_curves_of_all_sets(plots, metric):
    assert {f"metrics/report/{name}.png" for name in PICTURES} <= set(plots)

    drawn = {(row["filename"], row["step"], row[metric]) for row in plots[f"{metric.title()} by epoch"]}

    assert drawn == {
        (f"{name}/{metric}.tsv", row["step"], row[metric])
        for name in SETS
        for row in plots[f"metrics/train/plots/metrics/{name}/{metric}.tsv"]
    }
