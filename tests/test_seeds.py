"""``make seeds``: what was run is written down as it ends, and nothing is run twice."""

import json
import os
import signal

import dvc.api
import pytest
from helpers.faults import start
from helpers.project import needs_posix, quick_params

from benchmarks import seeds
from benchmarks.machine import machine_name
from benchmarks.recipes import RECIPES, load_runs, parameters

SEEDS = ("python", "-m", "benchmarks.seeds", "--recipes", "default", "--weights", "random", "--seeds", "0", "1")
PARAMS = quick_params()


def entry(recipe: str = "default", weights: str = "random", seed: int = 0, accuracy: float = 0.99) -> dict:
    return {
        "recipe": recipe, "parameters": parameters(PARAMS, RECIPES[recipe]), "weights": weights, "seed": seed,
        "validation_accuracy": 0.98, "validation_loss": 0.05, "test_accuracy": accuracy,
        "seconds": 100 + seed, "machine": "a laptop",
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_parameters_that_there_are_to_values_that_they_may_take(recipe):
    params = quick_params(**RECIPES[recipe])

    assert {name: getattr(params, name) for name in RECIPES[recipe]} == RECIPES[recipe]


def test_a_run_that_is_written_down_is_found_but_not_one_of_another_recipe():
    runs = [entry(weights="mine.pth", seed=1), entry(seed=2) | {"parameters": parameters(PARAMS, {"lr": 0.5})}]

    assert seeds.find(runs, "default", "some/folder/mine.pth", 1, PARAMS)
    assert not seeds.find(runs, "default", "random", 1, PARAMS)
    assert not seeds.find(runs, "default", "random", 2, PARAMS)  # the defaults were others


def test_the_table_has_mean_deviation_number_and_worst_of_each_kind():
    runs = [entry(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.99, 0.992, 0.994))]
    other = entry(seed=4) | {"parameters": parameters(PARAMS, {"lr": 0.5})}  # of defaults that were others

    header, _, default, fastest = seeds.table([*runs, other, entry("fastest", "mine.pth")], PARAMS)

    assert header.count("|") == default.count("|")
    assert default == "| default | random | 99.200% | 0.200% | 3 | 99.00% | 101 | a laptop |"
    assert fastest == "| fastest | mine.pth | 99.000% | - | 1 | 99.00% | 100 | a laptop |"


@pytest.mark.parametrize("state", ["Queued", "Running", "Failed"])
def test_an_experiment_that_is_not_through_has_no_result_whatever_metrics_dvc_shows_for_it(state, monkeypatch):
    experiment = seeds.experiment("default", "../my weights/resnet18.v2.safetensors", 1)
    row = {"Experiment": "default-resnet18-v2-1", "State": state, "test.accuracy": 0.9952}
    monkeypatch.setattr(dvc.api, "exp_show", lambda: [row])

    found = experiment._find()
    monkeypatch.setattr(dvc.api, "exp_show", lambda: [row, row | {"State": "Success", "validation.loss": "None"}])

    assert found is None
    assert experiment._find() == row | {"State": "Success", "validation.loss": None}


@needs_posix
@pytest.mark.slow
def test_runs_are_written_down_as_they_end_and_a_killed_command_goes_on(trained):
    file = trained.path / "benchmarks/seeds.json"
    file.unlink(missing_ok=True)
    process = start(trained, *SEEDS)
    for line in process.stdout:
        if "default-random-1" in line:  # the first is through
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    after_the_kill = load_runs(file)

    trained.run(*SEEDS)
    again = trained.run(*SEEDS).stdout

    first, second = load_runs(file)
    assert after_the_kill == [first]
    assert (first["seed"], second["seed"]) == (0, 1)
    errors = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]["errors"]
    assert first["test_accuracy"] == pytest.approx(1 - errors / 1000)  # seed 0 is the clone's own run
    assert first["machine"] == machine_name(json.loads(trained.read("models/run.json")))
    assert "seeds: default-random" not in again
    assert "| default | random |" in again
