"""What is committed agrees with itself: the lock, the parameters, the sources, the metrics and the README."""

import csv
import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
LOCK = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
README = (ROOT / "README.md").read_text()
TRAIN = json.loads((ROOT / "metrics/train/metrics.json").read_text())
EVALUATE = json.loads((ROOT / "metrics/evaluate/metrics.json").read_text())


def md5(name: str) -> str:
    return hashlib.md5((ROOT / name).read_bytes()).hexdigest()


def curve(name: str) -> list[float]:
    with (ROOT / f"metrics/train/plots/metrics/{name}.tsv").open() as file:
        return [float(row["accuracy"]) for row in csv.DictReader(file, delimiter="\t")]


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


@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_readme_draws_the_committed_curves(name):
    (line,) = re.findall(rf'line "{name}" \[(.*?)\]', README)
    assert [float(value) for value in line.split(",")] == [round(100 * value, 2) for value in curve(f"{name}/accuracy")]
