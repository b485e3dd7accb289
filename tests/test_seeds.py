"""``make seeds``: what was run is written down as it ends, and nothing is run twice."""

import json
import os
import signal

import dvc.api
import pytest
from helpers.faults import start
from helpers.project import Project, needs_posix, quick_params

from benchmarks import seeds
from benchmarks.recipes import RECIPES, parameters
from benchmarks.seeds import Run
from src.pipeline.params import load_params

SEEDS = ("python", "-m", "benchmarks.seeds", "--recipes", "default", "--weights", "random", "--seeds", "0", "1")
PARAMS = quick_params()


def entry(recipe: str = "default", weights: str = "random", seed: int = 0, accuracy: float = 0.99) -> dict:
    return {
        "recipe": recipe, "parameters": parameters(PARAMS, RECIPES[recipe]), "weights": weights, "seed": seed,
        "validation_accuracy": 0.98, "validation_loss": 0.05, "test_accuracy": accuracy,
        "seconds": 100 + seed, "machine": "a laptop",
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_parameters_that_there_are_to_values_that_they_may_take(in_project, recipe):
    in_project.set_params(**RECIPES[recipe])

    params = load_params()

    assert {name: getattr(params, name) for name in RECIPES[recipe]} == RECIPES[recipe]


def test_an_experiments_name_says_recipe_weights_and_seed():
    assert Run("default", "../my weights/resnet18.v2.safetensors", 3).experiment.name == "default-resnet18-v2-3"


def test_a_run_that_is_written_down_is_found_but_not_one_of_another_recipe():
    runs = [entry(weights="mine.pth", seed=1), entry(seed=2) | {"parameters": parameters(PARAMS, {"lr": 0.5})}]

    assert seeds.find(runs, Run("default", "some/folder/mine.pth", 1), PARAMS)
    assert not seeds.find(runs, Run("default", "random", 1), PARAMS)
    assert not seeds.find(runs, Run("default", "random", 2), PARAMS)  # the defaults were others


def test_the_table_has_mean_deviation_number_and_worst_of_each_kind():
    runs = [entry(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.99, 0.992, 0.994))]

    header, _, default, fastest = seeds.table([*runs, entry("fastest", "mine.pth")], PARAMS)

    assert header.count("|") == default.count("|")
    assert default == "| default | random | 99.200% | 0.200% | 3 | 99.00% | 101 | a laptop |"
    assert fastest == "| fastest | mine.pth | 99.000% | - | 1 | 99.00% | 100 | a laptop |"


def test_the_picture_is_a_png_and_the_same_bytes_each_time():
    runs = [entry(seed=seed, accuracy=0.99 + seed / 1000) for seed in range(3)]

    pictures = {seeds.draw(runs, PARAMS) for _ in range(2)}

    assert len(pictures) == 1
    assert pictures.pop().startswith(b"\x89PNG")


@pytest.mark.parametrize("state", ["Queued", "Running", "Failed"])
def test_an_experiment_that_is_not_through_has_no_result_whatever_metrics_dvc_shows_for_it(state, monkeypatch):
    run = Run("default", "random", 1)
    row = {"Experiment": run.experiment.name, "State": state, "test.accuracy": 0.9952}
    monkeypatch.setattr(dvc.api, "exp_show", lambda: [row])

    found = run.experiment._find()
    monkeypatch.setattr(dvc.api, "exp_show", lambda: [row, row | {"State": "Success", "validation.loss": "None"}])

    assert found is None
    assert run.experiment._find() == row | {"State": "Success", "validation.loss": None}


def written(project: Project) -> list[dict]:
    return json.loads(project.read("benchmarks/seeds.json"))["runs"]


@needs_posix
@pytest.mark.slow
def test_runs_are_written_down_as_they_end_and_a_killed_command_goes_on(trained):
    (trained.path / "benchmarks/seeds.json").unlink(missing_ok=True)
    process = start(trained, *SEEDS)
    for line in process.stdout:
        if "default-random-1" in line:  # the first is through
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    after_the_kill = written(trained)

    trained.run(*SEEDS)
    again = trained.run(*SEEDS).stdout

    assert [run["seed"] for run in after_the_kill] == [0]
    assert written(trained)[0] == after_the_kill[0]
    assert [run["seed"] for run in written(trained)] == [0, 1]
    errors = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]["errors"]
    assert written(trained)[0]["test_accuracy"] == pytest.approx(1 - errors / 1000)  # seed 0 is the clone's own run
    assert "seeds: default-random" not in again
    assert "| default | random |" in again
