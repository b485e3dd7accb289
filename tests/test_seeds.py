"""``make seeds``: what was run is written down as it ends, and nothing is run twice."""

import json
import os
import signal

import dvc.api
import pytest
from helpers.project import needs_posix, quick_params

from benchmarks import seeds
from benchmarks.machine import machine_name
from benchmarks.recipes import RECIPES, load_runs, parameters

SEEDS = ("python", "-m", "benchmarks.seeds", "--recipes", "default", "--weights", "random", "--seeds", "0", "1")
PARAMS = quick_params()


def entry(recipe: str = "default", weights: str = "random", seed: int = 0, accuracy: float = 0.99) -> dict:
    return {
        "recipe": recipe, "parameters": parameters(PARAMS, RECIPES[recipe]), "weights": weights, "seed": seed,
        "test_accuracy": accuracy, "seconds": 100 + seed, "machine": "a laptop",
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_parameters_that_there_are_to_values_that_they_may_take(recipe):
    params = quick_params(**RECIPES[recipe])

    assert params.model_dump().items() >= RECIPES[recipe].items()


def test_runs_of_defaults_that_were_others_are_left_out():
    other = {"parameters": parameters(PARAMS, {"lr": 0.5})}
    runs = [entry(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.99, 0.992, 0.994))]
    runs += [entry(weights="mine.pth", seed=4) | other, entry("fastest", "mine.pth", 3)]

    _, _, default, fastest = seeds.table(runs, PARAMS)

    assert default == "| default | random | 99.200% | 0.200% | 3 | 99.00% | 101 | a laptop |"
    assert fastest == "| fastest | mine.pth | 99.000% | - | 1 | 99.00% | 103 | a laptop |"
    assert seeds.is_among(runs, "fastest", "some/folder/mine.pth", 3, PARAMS)
    assert not seeds.is_among(runs, "default", "mine.pth", 4, PARAMS)


def test_an_experiment_that_is_not_through_has_no_result_whatever_metrics_dvc_shows_for_it(monkeypatch):
    row = {"Experiment": "default-random-1", "test.accuracy": 0.9952, "validation.loss": "None"}
    through = row | {"State": "Success"}
    rows = [row | {"State": state} for state in ("Queued", "Running", "Failed")]
    monkeypatch.setattr(dvc.api, "exp_show", lambda: rows)

    found = seeds.find_experiment("default-random-1")
    rows.append(through)

    assert found is None
    assert seeds.find_experiment("default-random-1") == through | {"validation.loss": None}


@needs_posix
@pytest.mark.slow
def test_runs_are_written_down_as_they_end_and_a_killed_command_goes_on(trained):
    file = trained.path / "benchmarks/seeds.json"
    file.unlink(missing_ok=True)
    process = trained.start(*SEEDS)
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
