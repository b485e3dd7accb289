"""The benchmark: how its rows are made of what was measured, and that it runs on a machine without the full MNIST."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from helpers.project import quick_params
from helpers.training import MNIST_INPUT

from benchmarks import rates, to_accuracy, tutorial
from benchmarks.machine import machine_name
from benchmarks.to_accuracy import EPOCH, TIMES, first_time
from src.images.dataset import Images
from src.resnet.machine import set_up_machine


def test_the_first_epoch_that_passes_the_goal_on_the_test_set_counts():
    lines = [
        (5.0, "epoch 1/2: train 0.1 99.50%, test 0.04 98.99% (900 img/s, 60 s)\n"),
        (9.0, "epoch 2/2: train 0.1 98.00%, test 0.04 99.00% (900 img/s, 60 s)\n"),
    ]

    assert first_time(0.99, lines) == 9.0
    assert first_time(0.995, lines) is None
    assert EPOCH.search("epoch 3: test accuracy 99.05%")[1] == "99.05"  # the peer's


def test_a_seed_that_misses_counts_as_infinite():
    assert to_accuracy.median([10.0, None, 12.0, 11.0, 30.0]) == 12.0
    assert to_accuracy.median([40.0, None]) is None


def test_a_run_that_is_known_is_not_made_again(monkeypatch):
    asked = []
    monkeypatch.setattr(to_accuracy, "project_copy", lambda overrides: nullcontext(asked.append(overrides)))
    monkeypatch.setattr(to_accuracy, "run_module", lambda root, command: [(7.0, "epoch 1: test accuracy 99.01%")])
    known = dict(to_accuracy.measure_times({}, ["random"], {}))
    ours = "fastest recipe from random"
    known[TIMES][ours] = {"median": 6.0, "1": 5.0, "2": 6.0, "4": 8.0, "5": 9.0}
    asked.clear()

    again = dict(to_accuracy.measure_times({}, ["random"], known))

    assert [overrides["seed"] for overrides in asked] == [3]
    assert list(again[TIMES][ours].items())[:4] == [("median", 7.0), ("1", 5.0), ("2", 6.0), ("3", 7.0)]


def test_a_machine_is_named_by_what_a_results_bits_and_seconds_depend_on(monkeypatch, torch_as_it_was):
    machine = set_up_machine("cpu", "fp32", 2)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")

    name = machine_name(machine.describe() | {"torch": "9.1"})

    assert name.split(", ")[1:] == ["cpu", "float32", "2 threads", "AVX2", "torch 9.1"]


def test_rates_are_measured_of_our_training_and_the_tutorials(digits, torch_as_it_was):
    images, labels = digits
    data = Images(images[:300], labels[:300].astype(np.int64))
    machine = set_up_machine("cpu", "fp32", 0)
    contestants = {
        "ours": rates.training_steps(
            quick_params(precision="fp32", batch_size=32, image_size=28), MNIST_INPUT, data, machine
        ),
        "the tutorial's": tutorial.train(data, 28, machine.device),
    }

    measured = rates.images_per_second(contestants, steps=1, rounds=2)

    assert list(measured) == ["ours, images/s", "the tutorial's, images/s"]
    assert min(measured.values()) > 0


@pytest.mark.slow
def test_the_benchmark_runs_on_the_sample_and_keeps_what_another_machine_measured(trained):
    file = trained.path / "benchmarks/results.json"
    file.write_text(json.dumps({"another": {"set-up": {"seconds": 1.0}}}))

    trained.run("python", "-m", "benchmarks", "--only", "times", "workflow")

    another, ours, *_ = json.loads(file.read_text()).values()
    assert another == {"set-up": {"seconds": 1.0}}
    assert ours["dvc repro, seconds"]["with nothing to do"] < ours["dvc repro, seconds"]["all but the training"]
    assert TIMES not in ours  # the sample is too small for it
