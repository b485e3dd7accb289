"""The benchmark: how its rows are made of what was measured, and that it runs on a machine without the full MNIST."""

import json
from contextlib import nullcontext

import pytest
import torch
from helpers.project import quick_params

from benchmarks import __main__ as bench
from benchmarks import fine_tuning, rates, seed_recipe, to_accuracy
from benchmarks.machine import machine_name
from benchmarks.to_accuracy import EPOCH, first_time, with_ratios
from src.mnist.dataset import Images
from src.mnist.dataset import Manifest
from src.resnet.machine import Machine, set_up_machine


def test_the_first_epoch_that_passes_the_goal_on_the_test_set_counts():
    lines = [
        (1.0, "train: 57,000 images\n"),
        (5.0, "epoch 1/2: train loss 0.1 accuracy 99.50%, test loss 0.04 accuracy 98.99% (900 images/s, 60 s)\n"),
        (9.0, "epoch 2/2: train loss 0.1 accuracy 98.00%, test loss 0.04 accuracy 99.00% (900 images/s, 60 s)\n"),
    ]

    assert first_time(0.99, lines) == 9.0
    assert first_time(0.995, lines) is None


def test_the_peers_lines_are_read_as_well():
    assert EPOCH.search("epoch 3: test accuracy 99.05%")[1] == "99.05"


def test_a_seed_that_misses_counts_as_one_that_takes_for_ever():
    seconds = {
        "fastest recipe from random": {"1": 10.0, "2": None, "3": 12.0, "4": 11.0, "5": 30.0},
        "PyTorch's mnist example": {"1": None, "3": 100.0, "5": None},
        "plain fine-tuning loop": {"1": 40.0, "3": 50.0, "5": 60.0},
    }

    rows = with_ratios(seconds)

    assert rows["fastest recipe from random, median"] == 12.0
    assert rows["PyTorch's mnist example, median"] is None
    assert rows["fastest recipe from random against PyTorch's mnist example"] is None
    assert rows["fastest recipe from random against plain fine-tuning loop"] == 12 / 50


@pytest.mark.parametrize(
    ("has", "used", "named"),
    [(True, "AVX2", "AVX2 (AVX-512 masked)"), (True, "AVX512", "AVX512"), (False, "AVX2", "AVX2")],
)
def test_a_processor_kept_from_avx_512_is_named_as_another_than_one_without(has, used, named, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": has})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)

    name = machine_name(Machine(torch.device("cpu"), torch.float32))

    assert name.split(", ")[-2] == named


def test_a_run_that_is_known_is_not_made_again(monkeypatch):
    asked = []
    monkeypatch.setattr(to_accuracy, "project_copy", lambda overrides: nullcontext(asked.append(overrides)))
    monkeypatch.setattr(to_accuracy, "run_module", lambda root, command: [(7.0, "epoch 1: test accuracy 99.01%")])
    all_of_it = dict(to_accuracy.measure_times({}, ["random"], {}))
    known = {title: dict(rows) for title, rows in all_of_it.items()}
    known["seconds to 99%"]["fastest recipe from random, by seed"] = {"1": 5.0, "2": 6.0, "4": 8.0, "5": 9.0}
    asked.clear()

    again = dict(to_accuracy.measure_times({}, ["random"], known))

    assert [overrides["seed"] for overrides in asked] == [3]
    assert again["seconds to 99%"]["fastest recipe from random, median"] == 7.0
    assert list(again["seconds to 99%"]["fastest recipe from random, by seed"]) == ["1", "2", "3", "4", "5"]


def test_the_table_has_a_column_for_each_machine_and_a_row_for_each_figure():
    columns = {
        "a laptop": {"set-up": {"seconds": 63.5}},
        "a server": {"set-up": {"seconds": None, "MiB": {"1": 1, "3": 2}}},
    }

    assert bench.table(columns) == [
        "| what | a laptop | a server |",
        "|---|---|---|",
        "| set-up: seconds | 63.50 | not reached |",
        "| set-up: MiB | - | 1, 2 |",
    ]


def test_the_machine_is_masked_where_it_has_more_than_avx2(monkeypatch):
    monkeypatch.setattr(bench, "load_params", lambda: quick_params(precision="fp32"))
    more = {}
    for capability in ("DEFAULT", "AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)  # noqa: B023
        more[capability] = bench.has_more_than_avx2()

    assert more == {"DEFAULT": False, "AVX2": False, "AVX512": True}


def test_the_plain_loop_starts_from_the_weights_that_the_manifest_names(tmp_path):
    file = tmp_path / "own.pth"
    given = {"layer1.0.bn1.weight": torch.full((64,), 3.0)}
    torch.save(fine_tuning.resnet18().state_dict() | given, file)
    manifest = Manifest(
        dataset="mnist", training_images=1, test_images=1, initial_weights="own.pth", weights_file=file, sha256={}
    )

    model = fine_tuning.build(manifest)

    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert torch.equal(model.layer1[0].bn1.weight.detach(), given["layer1.0.bn1.weight"])


def test_rates_are_measured_of_our_training_and_the_tutorials(digits, torch_as_it_was):
    images, labels = digits
    data = Images(torch.from_numpy(images[:300]), torch.from_numpy(labels[:300]))
    params = quick_params(precision="fp32", batch_size=32)
    machine = set_up_machine("cpu", "fp32", 0)
    contestants = {
        "ours": rates.training_steps(params, data, machine),
        "tutorial's loop": seed_recipe.train(data, 28, machine.device),
    }

    measured = rates.images_per_second(contestants, steps=1, rounds=2)

    assert list(measured) == ["ours, images/s", "tutorial's loop, images/s"]
    assert min(measured.values()) > 0


@pytest.mark.slow
def test_a_sweep_writes_each_recipe_down_and_runs_none_twice(trained):
    file = trained.path / "benchmarks/sweep.json"
    file.unlink(missing_ok=True)
    tables = []
    for recipes in (["epochs=0.1"], ["epochs=0.1", "epochs=0.2,augment=false"]):
        tables.append(trained.run("python", "-m", "benchmarks.sweep", *recipes).stdout)

    first, second = json.loads(file.read_text())["runs"]
    assert first["parameters"]["epochs"] == 0.1
    assert (second["parameters"]["epochs"], second["parameters"]["augment"]) == (0.2, False)
    assert first["accuracy"][-1] * 667 == pytest.approx(round(first["accuracy"][-1] * 667))  # a sixth of 4,000
    assert "| `augment=False`, `epochs=0.2` | random | 0 |" in tables[1]


@pytest.mark.slow
def test_the_benchmark_runs_on_the_sample_and_keeps_what_another_machine_measured(trained):
    file = trained.path / "benchmarks/results.json"
    file.write_text(json.dumps({"columns": {"another": {"set-up": {"seconds": 1.0}}}}))

    trained.run("python", "-m", "benchmarks", "--only", "times", "workflow")

    another, ours, *_ = json.loads(file.read_text())["columns"].values()
    assert another == {"set-up": {"seconds": 1.0}}
    assert ours["dvc repro, seconds"]["with nothing to do"] < ours["dvc repro, seconds"]["all but the training"]
    assert "seconds to 99%" not in ours  # the sample is too small for it
