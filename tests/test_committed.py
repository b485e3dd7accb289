"""What is committed agrees with itself: the lock, the parameters, the sources, the metrics and the README."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.__main__ import table
from src.evaluate.figures import confusion_matrix, learning_curves
from src.mnist.images import CLASS_NAMES
from src.pipeline.params import load_params
from src.pipeline.results import CONFUSION_MATRIX_FILE, LEARNING_CURVES_FILE, PREDICTIONS_FILE, load_curve
from src.report.__main__ import PICTURES, report

ROOT = Path(__file__).resolve().parent.parent
LOCK = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
README = (ROOT / "README.md").read_text()
TRAIN = json.loads((ROOT / "metrics/train/metrics.json").read_text())
EVALUATE = json.loads((ROOT / "metrics/evaluate/metrics.json").read_text())


def md5(name: str) -> str:
    return hashlib.md5((ROOT / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("stage", LOCK)
def test_the_committed_run_is_of_the_committed_sources(stage):
    sources = {dep["path"]: dep["md5"] for dep in LOCK[stage]["deps"] if dep["path"].startswith("src/")}
    assert sources == {name: md5(name) for name in sources}


@pytest.mark.parametrize("stage", LOCK)
def test_the_committed_run_is_of_the_committed_parameters(stage):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    locked = LOCK[stage]["params"]["params.yaml"]
    assert locked == {name: params[name] for name in locked}


def test_the_committed_run_is_of_the_full_mnist():
    (manifest,) = (out for out in LOCK["download"]["outs"] if out["path"] == "data/manifest.json")
    assert manifest["md5"] == md5("data/manifest.json")
    assert json.loads((ROOT / "data/manifest.json").read_text())["training_images"] == 60_000
    assert EVALUATE["test"]["images"] == 10_000
    assert EVALUATE["test"]["accuracy"] == TRAIN["test"]["accuracy"] == (10_000 - EVALUATE["test"]["errors"]) / 10_000


def test_the_readme_gives_the_committed_figures():
    for name in ("train", "validation", "test"):
        assert f"| {name} | {TRAIN[name]['loss']:.4f} | {TRAIN[name]['accuracy']:.2%} |" in README
    assert f"{EVALUATE['test']['errors']} errors in 10,000 test images" in README
    assert f"{TRAIN['training_images']:,} training images" in README
    assert f"from **{TRAIN['initial_weights']} weights**" in README


def test_the_readme_gives_the_committed_benchmark():
    results = json.loads((ROOT / "benchmarks/results.json").read_text())
    assert "\n".join(table(results)) in README
    assert results["machine"] in README


def test_the_committed_report_is_of_the_committed_metrics_and_parameters():
    page = (ROOT / "metrics/report.md").read_text()
    assert page == report(load_params(ROOT / "params.yaml"), TRAIN, EVALUATE)


def test_the_committed_pictures_are_drawn_again_bit_for_bit(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert learning_curves(load_curve("loss"), load_curve("accuracy")) == LEARNING_CURVES_FILE.read_bytes()
    actual, predicted = np.loadtxt(PREDICTIONS_FILE, int, delimiter=",", skiprows=1, unpack=True)
    assert confusion_matrix(actual, predicted, CLASS_NAMES) == CONFUSION_MATRIX_FILE.read_bytes()


@pytest.mark.parametrize("path", PICTURES)
def test_the_readme_shows_the_committed_pictures(path):
    assert f"]({path.as_posix()})" in README
    assert (ROOT / path).stat().st_size < 150_000
