"""DVC's plots: they hold what the run wrote, and are compared between commits."""

import json
import re
from collections import Counter

import pytest
from helpers.project import Project
from PIL import Image

PICTURES = ("learning_curves", "confusion_matrix", "mistakes", "reliability")
SETS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def plots(longer_once: Project) -> dict[str, list[dict]]:
    """For each plot, by its name, the rows that it draws; for a picture none."""
    done = longer_once.run("dvc", "plots", "show", "--json")
    shown = json.loads(done.stdout)
    assert "failed" not in done.stderr.lower()
    assert "errors" not in shown
    return {
        name: parts[0]["content"]["data"]["values"] if parts[0]["type"] == "vega" else []
        for name, parts in shown["data"].items()
    }


def rows(project: Project, name: str) -> list[list[str]]:
    """The rows of a table, without the header."""
    return [re.split(r"[,\t]", line) for line in project.read(name).splitlines()[1:]]


@pytest.mark.parametrize(("plot", "metric"), [("Loss by epoch", "loss"), ("Accuracy by epoch", "accuracy")])
def test_one_plot_shows_the_curves_of_all_sets_and_each_has_one_of_its_own(plots, longer_once, plot, metric):
    curves = {name: rows(longer_once, f"metrics/train/plots/metrics/{name}/{metric}.tsv") for name in SETS}

    together = {(row["filename"].split("/")[0], row["step"], row[metric]) for row in plots[plot]}

    assert together == {(name, step, value) for name, curve in curves.items() for step, value in curve}
    for name, curve in curves.items():
        own = plots[f"metrics/train/plots/metrics/{name}/{metric}.tsv"]
        assert [[row["step"], row[metric]] for row in own] == curve
        assert len(curve) == 2


def test_the_confusion_matrix_has_each_test_image(plots, longer_once):
    drawn = Counter((row["actual"], row["predicted"]) for row in plots["metrics/evaluate/predictions.csv"])

    assert drawn == Counter(
        (actual, predicted) for actual, predicted, *_ in rows(longer_once, "metrics/evaluate/predictions.csv")
    )
    assert drawn.total() == 1000


@pytest.mark.parametrize(
    ("table", "columns"),
    [("classes", ("class", "precision", "recall", "f1")), ("calibration", ("confidence", "accuracy"))],
)
def test_a_table_of_evaluate_is_drawn_whole(plots, longer_once, table, columns):
    header, *written = (line.split(",") for line in longer_once.read(f"metrics/evaluate/{table}.csv").splitlines())

    drawn = plots[f"metrics/evaluate/{table}.csv"]

    assert written
    for column in columns:
        assert [row[column] for row in drawn] == [row[header.index(column)] for row in written]


def test_the_page_shows_each_picture(plots):
    assert {f"metrics/report/{name}.png" for name in PICTURES} <= set(plots)


def test_plots_diff_puts_the_pictures_of_two_commits_side_by_side(trained):
    file = trained.path / "metrics/report/reliability.png"
    before = file.read_bytes()
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
    trained.commit("another picture")

    trained.run("dvc", "plots", "diff", "HEAD~1", "HEAD", "--out", "diff")

    page, static = trained.read("diff/index.html"), trained.path / "diff/static"
    for name in PICTURES:
        assert f'<img src="static/HEAD_metrics_report_{name}.png"' in page
        assert f'<img src="static/HEAD~1_metrics_report_{name}.png"' in page
    assert (static / "HEAD_metrics_report_reliability.png").read_bytes() == file.read_bytes()
    assert (static / "HEAD~1_metrics_report_reliability.png").read_bytes() == before
