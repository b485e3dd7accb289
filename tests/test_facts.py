"""What `make docs` says of committed files, of another run than the committed one."""

import json

import pytest

from benchmarks.recipes import parameters
from release import facts
from release.docs import fill
from src.pipeline.params import load_params


@pytest.fixture
def other_run(trained_once, tmp_path, monkeypatch):
    """A clone with a run on the sample, in the place of this project."""
    project = trained_once.copy(tmp_path)
    monkeypatch.setattr(facts, "ROOT", project.path)
    return project


def test_the_headline_names_data_weights_and_errors_of_that_run(other_run):
    test = json.loads(other_run.read("metrics/evaluate/metrics.json"))["test"]

    headline = facts.headline()

    assert f"{test['errors']:,} errors in 1,000 images" in headline
    assert "1 epoch on 3,800 images of a sample of 5,000 MNIST digits, from random weights." in headline
    assert "downloaded" not in headline


def test_the_headline_says_so_where_the_weights_could_not_be_had(other_run):
    other_run.set_params(weights="imagenet")

    assert "The ImageNet weights, which the defaults ask for, could not be downloaded" in facts.headline()


def test_the_results_are_those_of_the_report(other_run):
    assert facts.results() in other_run.read("metrics/report.md")


def test_the_tables_of_seeds_appear_once_there_are_runs(other_run):
    run = {
        "recipe": "default", "parameters": parameters(load_params(other_run.path / "params.yaml"), {}),
        "weights": "random", "seed": 0, "test_accuracy": 0.9, "seconds": 60, "machine": "a laptop",
    }  # fmt: skip
    (other_run.path / "benchmarks/seeds.json").unlink(missing_ok=True)
    before = facts.seeds()
    other = run | {"weights": "own.pth", "seconds": 180}
    (other_run.path / "benchmarks/seeds.json").write_text(json.dumps({"runs": [run, other]}))

    page = fill("<!-- seeds -->\n<!-- /seeds -->\n<!-- seeds-in-short -->\n<!-- /seeds-in-short -->\n")

    assert before == "No run over several seeds is committed yet."
    assert "| default | random | 90.000% | - | 1 | 90.00% | 60 | a laptop |" in page
    assert "| recipe | from random weights | from `own.pth` |" in page
    assert "| `default` | 90.00% (worst of 1: 90.00%) | 90.00% (worst of 1: 90.00%) |" in page
    assert facts.duration().endswith("2 min on a laptop.")  # the median of both
    assert facts.in_short("A CPU, cpu, float32, 2 threads, AVX2, torch 2.15.0") == "A CPU (float32, 2 threads, AVX2)"


def test_a_time_that_was_measured_with_other_defaults_is_not_shown(other_run):
    file, columns = other_run.path / "benchmarks/results.json", {"a laptop": {"defaults": {"epochs": 1}}}
    columns["a laptop"]["defaults"]["seconds in all"] = 120.0
    columns["a laptop"]["dvc repro, seconds"] = {"all but the training": 61.7}
    columns["a laptop, AVX2 (AVX-512 masked)"] = columns["a laptop"]  # a second measurement, no second machine
    file.write_text(json.dumps({"columns": columns}))
    now = facts.duration()
    columns["a laptop"]["defaults"]["epochs"] = 7
    file.write_text(json.dumps({"columns": columns}))

    assert now == "The training takes 2 min on a laptop, and the rest of the workflow 62 s besides downloads."
    assert facts.duration() == facts.NOT_TIMED


def test_without_a_whole_training_the_time_is_told_from_the_rate(other_run):
    columns = {"a laptop": {"training with the defaults": {"28 px, images/s": 10.0}}}
    (other_run.path / "benchmarks/results.json").write_text(json.dumps({"columns": columns}))

    assert (
        facts.duration() == "The training takes about 6 min, by the rate of a few steps, on a laptop."
    )  # 3,800 images
