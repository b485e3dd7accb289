"""DVC as its users know it: the run cache, live metrics, tables and plots, files that do not count."""

import csv
import json
import re

import pytest
from helpers.project import Project, stages_run
from helpers.server import NO_NETWORK

from src.pipeline.paths import SETS

PICTURES = ("learning_curves", "confusion_matrix", "mistakes", "reliability")
CURVES = [f"metrics/train/plots/metrics/{name}/{metric}.tsv" for name in SETS for metric in ("loss", "accuracy")]
TABLES = [f"metrics/evaluate/{name}.csv" for name in ("predictions", "classes", "calibration")]


def read(project: Project, file: str) -> list[dict[str, str]]:
    return list(csv.DictReader(project.read(file).splitlines(), delimiter="\t" if "tsv" in file else ","))


def test_going_back_to_earlier_parameters_trains_nothing(longer):
    longer.set_params(epochs=1, ema_decay=0.998)

    assert "Stage 'train' is cached - skipping run" in longer.run("dvc", "repro", "train").stdout


@pytest.mark.slow
def test_the_download_is_never_served_by_the_run_cache_and_the_same_data_train_nothing_again(trained):
    for value in (False, True):
        trained.set_params(offline_fallback=value)
        assert stages_run(trained.run("dvc", "repro").stdout) == ["download", "report"]


def test_metrics_are_there_while_the_run_goes_on(longer_once):
    watched = longer_once.watched[""]["data"]["metrics/train/metrics.json"]["data"]

    assert longer_once.still_running
    assert 1 <= watched["step"] <= 2  # a fast machine is through with all of it by then
    assert 0 < watched["train"]["accuracy"] < 1


def test_the_table_of_experiments_has_few_columns_and_can_be_sorted_by_the_test_accuracy(longer_once):
    done = longer_once.run("dvc", "exp", "show", "--only-changed", "--sort-by", "test.accuracy", "--csv")

    header, *rows = (line.split(",") for line in done.stdout.splitlines())
    dvcs_own = {"rev", "typ", "parent", "State", "Executor", "Experiment", "Created"}
    assert any("longer" in row for row in rows)
    assert "ambiguous" not in done.stderr.lower()
    assert set(header) - dvcs_own - {"models/model.safetensors"} == {  # a dependency, now and then
        "train.loss", "train.accuracy", "validation.loss", "validation.accuracy", "step", "test.loss",
        "test.accuracy", "test.errors", "test.calibration_error", "test.standard_error", "epochs", "ema_decay",
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_without_a_validation_set_shows_all_there_is_and_complains_of_nothing(trained):
    trained.run("dvc", "exp", "run", "-n", "without", "-S", "validation_size=0")

    for command in (("plots", "show"), ("plots", "diff", "HEAD"), ("metrics", "diff"), ("exp", "show", "--csv")):
        done = trained.run("dvc", *command)
        assert "failed" not in (done.stdout + done.stderr).lower()
    assert "| validation |" not in trained.read("metrics/report.md")
    assert trained.read("metrics/train/plots/metrics/validation/loss.tsv") == "step\tloss\n"


def test_a_stage_runs_again_for_a_changed_and_a_new_source_and_not_for_what_systems_and_editors_leave(trained):
    left = [f"evaluate/{name}" for name in ("stray.pyc", ".DS_Store", "._a.py", ".a.py.swp", "a.py~")]
    for file in ("report/figures.py", "train/new.py", *left):
        with (trained.path / "src" / file).open("a") as source:
            source.write("# a line\n")

    changed = trained.run("dvc", "status", "dvc.yaml").stdout

    assert re.findall(r"^(\w+):$", changed, re.M) == ["train", "report"]


def test_a_second_clone_that_pulls_needs_no_network_and_trains_nothing(trained, tmp_path_factory):
    servers = tmp_path_factory.mktemp("servers")
    second, storage = Project(servers / "second"), str(servers / "storage")
    trained.run("git", "clone", "-q", ".", str(second.path))
    for project in (trained, second):
        project.run("dvc", "remote", "add", "--local", "-d", "storage", storage)
    trained.run("dvc", "push")

    second.run("dvc", "pull", **NO_NETWORK)
    done = second.run("dvc", "repro", **NO_NETWORK)

    assert "up to date" in done.stdout
    assert second.run("git", "status", "--porcelain").stdout == ""


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
