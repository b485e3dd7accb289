"""``make seeds``: what was run is written down as it ends, and nothing is run twice."""

import json
import os
import signal

import dvc.api
import numpy as np
import pytest
from helpers.project import needs_posix, quick_params

from benchmarks import seeds
from benchmarks.compare import compare, writers_of
from benchmarks.machine import machine_name
from benchmarks.recipes import RECIPES, load_runs, parameters

SEEDS = ("python", "-m", "benchmarks.seeds", "--recipes", "default", "--weights", "random", "--seeds", "0", "1")
PARAMS = quick_params()


def entry(recipe: str = "default", weights: str = "random", seed: int = 0, accuracy: float = 0.99) -> dict:
    return {
        "recipe": recipe, "parameters": parameters(PARAMS, RECIPES[recipe]), "weights": weights, "seed": seed,
        "test_accuracy": accuracy, "seconds": 100 + seed, "machine": "a laptop", "wrong": [0, seed],
    }  # fmt: skip


def test_a_difference_of_two_recipes_has_an_interval_and_a_p_value_by_writer_and_seed():
    writers = np.repeat(np.arange(100), 10)
    theirs = [range(0, 1000, 20)] * 3  # one image of every second writer
    fewer, as_many = [range(0, 1000, 100)] * 3, [range(5, 1000, 20)] * 3
    one_writers = [[*range(0, 1000, 20), *range(1, 10)]] * 3  # nine errors more, all of one hand

    better, same, worse = (compare(runs, theirs, writers) for runs in (fewer, as_many, one_writers))

    assert better[0] == pytest.approx(0.04)
    assert 0.02 < better[1] < 0.04 < better[2] < 0.06
    assert better[3] < 0.001
    assert same[:1] == (0,)
    assert same[3] > 0.8
    assert worse[0] == pytest.approx(-0.009)
    assert worse[2] == 0  # a draw without that writer
    assert worse[3] > 0.3
    assert len(writers_of("test")) == len(writers_of("validation")) == 10_000


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_parameters_that_there_are_to_values_that_they_may_take(recipe):
    params = quick_params(**RECIPES[recipe])

    assert params.model_dump().items() >= RECIPES[recipe].items()


def test_runs_of_defaults_that_were_others_are_left_out():
    other = {"parameters": parameters(PARAMS, {"lr": 0.5})}
    runs = [entry(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.99, 0.992, 0.994))]
    runs += [entry(weights="mine.pth", seed=4) | other, entry("fastest", "mine.pth", 3)]

    _, _, default, fastest = seeds.table(runs, PARAMS)

    assert default == "| default | random | 99.200% | 0.200% | 3 | 99.00% | - | 101 | a laptop |"
    assert fastest.startswith("| fastest | mine.pth | 99.000% | - | 1 | 99.00% | +0.00% (")
    assert fastest.endswith(" | 103 | a laptop |")
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
    assert "default-random-0 ..." not in again
    assert "| default | random |" in again
