"""What `make docs` says of committed files, of another run than the committed one."""

import json

import pytest

from benchmarks.recipes import parameters, save_runs
from release import facts
from src.pipeline.params import load_params


@pytest.fixture
def other_run(trained_once, tmp_path, monkeypatch):
    """A clone with a run on the sample, in the place of this project."""
    project = trained_once.copy(tmp_path)
    monkeypatch.setattr(facts, "ROOT", project.path)
    return project


@pytest.mark.parametrize(("weights", "lacks"), [("random", False), ("imagenet", True)])
def test_the_headline_names_data_weights_and_errors_of_that_run_and_what_it_lacked(other_run, weights, lacks):
    other_run.set_params(weights=weights)
    test = json.loads(other_run.read("metrics/evaluate/metrics.json"))["test"]

    headline = facts.headline()

    assert f"{test['errors']:,} errors in 1,000 images" in headline
    assert "1 epoch on 3,800 images of a sample of 5,000 MNIST digits, from random weights." in headline
    assert ("The ImageNet weights, which the defaults ask for, could not be downloaded" in headline) is lacks


def test_the_results_are_those_of_the_report(other_run):
    assert facts.results() in other_run.read("metrics/report.md")


def test_the_tables_of_seeds_appear_once_there_are_runs(other_run):
    file = other_run.path / "benchmarks/seeds.json"
    file.unlink(missing_ok=True)
    before = facts.several_seeds(), facts.seeds_in_short()
    run = {
        "recipe": "default", "parameters": parameters(load_params(other_run.path / "params.yaml"), {}),
        "weights": "random", "seed": 0, "test_accuracy": 0.9, "seconds": 60, "machine": "a laptop, cpu, torch 2.15.0",
    }  # fmt: skip
    save_runs(file, [run, run | {"weights": "own.pth", "seconds": 180}])

    assert before == (facts.NO_SEEDS, facts.NO_SEEDS)
    assert "| default | random | 90.000% | - | 1 | 90.00% | 60 | a laptop |" in facts.several_seeds()
    assert facts.seeds_in_short().splitlines()[::2] == [
        "| recipe | from random weights | from `own.pth` |",
        "| `default` | 90.00% (worst of 1: 90.00%) | 90.00% (worst of 1: 90.00%) |",
    ]
    assert facts.duration().endswith("2 min on a laptop.")  # the median of both


def test_only_a_time_that_was_measured_with_these_defaults_and_nothing_masked_is_shown(other_run):
    (other_run.path / "benchmarks/seeds.json").unlink(missing_ok=True)
    rows = {"defaults": {"epochs": 1, "seconds in all": 120.0}, "dvc repro, seconds": {"all but the training": 61.7}}
    others = rows | {"defaults": {"epochs": 7, "seconds in all": 120.0}}
    columns = {"a laptop, float32": rows, "a laptop, AVX2 (AVX-512 masked)": rows, "a server": others}
    (other_run.path / "benchmarks/results.json").write_text(json.dumps(columns))

    assert facts.duration() == "The training takes 2 min on a laptop (float32), and the rest of the workflow 62 s."
