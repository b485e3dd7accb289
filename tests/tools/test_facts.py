"""What `make docs` says of committed files, of another run than the committed one."""

import json

import pytest

from benchmarks.recipes import parameters, save_runs
from release import facts
from src.pipeline.params import load_params


@pytest.fixture(scope="module")
def other_run(trained_once, tmp_path_factory):
    """A clone with a run on the sample, in the place of this project."""
    project = trained_once.copy(tmp_path_factory.mktemp("other"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(facts, "ROOT", project.path)
        yield project


def test_the_headline_and_the_price_are_of_that_run_and_the_table_of_seeds_has_a_row_for_each_weights(other_run):
    test = json.loads(other_run.read("metrics/evaluate/metrics.json"))["test"]
    run = {
        "recipe": "default", "parameters": parameters(load_params(other_run.path / "params.yaml"), {}),
        "weights": "random", "seed": 0, "test_accuracy": 0.9, "seconds": 60,
        "machine": "a laptop, cpu, float32, 2 threads, torch 2.15.0", "wrong": [7],
    }  # fmt: skip
    save_runs(other_run.path / "benchmarks/seeds.json", [run, run | {"weights": "own.pth", "seconds": 180}])

    assert f"{test['errors']:,} errors in 1,000 images" in facts.headline()
    assert "1 epoch on 3,800 images" in facts.headline()
    assert facts.results().splitlines()[-1] == f"| test | {test['loss']:.4f} | {test['accuracy']:.2%} |"
    assert f"{test['accuracy']:.2%} test accuracy in 2 minutes on two CPU cores" in facts.price()  # their median
    assert "2 min on a laptop (float32, 2 threads)" in facts.duration()
    rows = [row.split(" | ")[:2] for row in facts.several_seeds().splitlines()[2:]]
    assert rows == [["| default", "random"], ["| default", "own.pth"]]


def test_the_speed_is_told_in_times_where_both_were_measured(other_run):
    rates = {"the tutorial's loop, fp32, images/s": 10.0, "ours, fp32, images/s": 15.0}
    times = {facts.PEER: {"median": 90.0}, "fastest recipe from random": {"median": 30.0}}
    measured = {"a laptop, cpu, torch 2": {facts.TUTORIAL: rates, facts.TIMES: times}, "another, cpu": {"set-up": {}}}
    (other_run.path / "benchmarks/results.json").write_text(json.dumps(measured))

    loop, race = facts.speedups().splitlines()

    assert "1.5 times" in loop
    assert "3.0 times" in race
    assert "ours, fp32" in facts.benchmark()
    assert "ours, fp32" not in facts.benchmark_rest()


def test_the_table_of_reproductions_has_a_row_for_each_record_the_latest_first(other_run):
    record = {
        "date": "2099-01-02 03:04", "by": "Someone", "machine": "a laptop, cpu, float32, 4 threads, AVX2, torch 2.15.0",
        "system": "Linux x86_64", "used": {"python": "3.13.1", "torch": "2.15.0"}, "run": "sample",
        "verdict": "the same to rounding", "differing": [["train", "models/model.safetensors"]],
        "model_md5": "1a2b3c4d5", "differences": {"loss": 0.001, "accuracy": 0}, "other": {"threads": [2, 4]},
    }  # fmt: skip
    (other_run.path / "reproductions/a-laptop-avx2-2099-01-02-03-04.json").write_text(json.dumps(record))

    row = facts.reproductions().splitlines()[2].split(" | ")
    assert row == [
        "| 2099-01-02 03:04",
        "Someone",
        "a laptop (float32, 4 threads, AVX2), Linux x86_64",
        "3.13.1, 2.15.0",
        "sample",
        "**the same to rounding** from `models/model.safetensors` on",
        "loss 0.001",
        "threads 2 → 4",
        "`1a2b3c4` |",
    ]
