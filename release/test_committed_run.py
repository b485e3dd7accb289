"""``make release-check``: what is committed agrees with itself, and comes from one run on the full MNIST."""

import json
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from src.pipeline.params import load_params

ROOT = Path(__file__).resolve().parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
README = (ROOT / "README.md").read_text()
MEND = "run `dvc repro`; where the result can't have changed, `make lock` does it in seconds"


@pytest.fixture(scope="module")
def stages():
    with Repo(str(ROOT)) as repo:
        yield {stage.name: stage for stage in repo.index.stages}


def read(name: str) -> dict:
    return json.loads((ROOT / name).read_text())


@pytest.mark.parametrize("name", STAGES)
def test_the_committed_run_is_of_the_committed_sources(stages, name):
    sources = [dep for dep in stages[name].deps if dep.def_path.startswith("src/")]

    changed = [dep.def_path for dep in sources if dep.status()]

    assert changed == [], f"{', '.join(changed)} changed since the committed run of {name}: {MEND}"
    assert not stages[name].cmd_changed, f"the command of {name} changed since the committed run: {MEND}"


@pytest.mark.parametrize("name", STAGES)
def test_the_committed_run_is_of_the_committed_parameters(stages, name):
    parameters = [dep for dep in stages[name].deps if dep.def_path == "params.yaml"]

    changed = [dep.status() for dep in parameters if dep.status()]

    assert changed == [], "params.yaml is not the committed run's: run `dvc repro`"


@pytest.mark.parametrize("name", STAGES)
def test_the_results_in_git_are_those_of_the_committed_run(stages, name):
    results = [out for out in stages[name].outs if not out.use_cache]
    results += [dep for dep in stages[name].deps if dep.def_path.startswith("metrics/")]

    changed = [result.def_path for result in results if result.status()]

    assert changed == [], f"{', '.join(changed)} and dvc.lock are of different runs: run `dvc repro`"


def test_the_committed_parameters_are_sound():
    load_params(ROOT / "params.yaml")


def test_the_committed_run_is_of_the_full_mnist():
    manifest, test = read("data/manifest.json"), read("metrics/evaluate/metrics.json")["test"]

    assert (manifest["dataset"], manifest["training_images"]) == ("mnist", 60_000)
    assert test["images"] == 10_000
    assert test["accuracy"] == (10_000 - test["errors"]) / 10_000


def test_the_readme_gives_the_committed_figures():
    train, test = read("metrics/train/metrics.json"), read("metrics/evaluate/metrics.json")["test"]

    for name, metrics in {**train, "test": test}.items():
        if name in ("train", "validation", "test"):
            assert f"| {name} | {metrics['loss']:.4f} | {metrics['accuracy']:.2%} |" in README
    assert f"{test['errors']} errors in 10,000 test images" in README
    assert f"{train['training_images']:,} training images" in README
    assert f"from **{train['initial_weights']} weights**" in README


def test_the_readme_gives_the_committed_benchmark():
    from benchmarks.__main__ import table  # imports torch, which the other checks need not wait for

    results = read("benchmarks/results.json")

    assert "\n".join(table(results)) in README
    assert results["machine"] in README


@pytest.mark.parametrize("name", ["learning_curves", "confusion_matrix", "mistakes", "reliability"])
def test_the_readme_shows_the_committed_pictures(name):
    picture = ROOT / f"metrics/report/{name}.png"

    assert f"](metrics/report/{name}.png)" in README
    assert picture.stat().st_size < 150_000
