"""``make release-check``: what is committed agrees with itself, and comes from one run on the full MNIST."""

import json
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from PIL import Image

from release.docs import documents, fill
from src.pipeline.params import load_params

ROOT = Path(__file__).resolve().parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
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


def test_the_pages_say_what_the_committed_files_say():
    stale = [page.name for page in documents() if fill(text := page.read_text(encoding="utf-8")) != text]

    assert stale == [], "run `make docs`"


def committed_md5(stage: str, file: str) -> str:
    outs = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"][stage]["outs"]
    (committed,) = [out["md5"] for out in outs if out["path"] == f"models/{file}"]
    return committed


@pytest.mark.parametrize(
    ("stage", "file", "name"),
    [("train", "model.safetensors", "model_md5"), ("outliers", "outliers.safetensors", "outlier_head_md5")],
)
def test_the_pictures_were_read_by_the_committed_model(stage, file, name):
    measured = read("benchmarks/pictures.json")[name]

    assert measured == committed_md5(stage, file), "run `python -m benchmarks.pictures --photos 60`"


def test_the_picture_of_the_page_shows_the_committed_model():
    with Image.open(ROOT / "docs/demo.png") as picture:
        shown = picture.info.get("model_md5")

    assert shown == committed_md5("train", "model.safetensors"), "run `python -m benchmarks.demo --picture`"


@pytest.mark.parametrize("name", ["learning_curves", "confusion_matrix", "mistakes", "reliability"])
def test_the_pages_show_the_committed_pictures(name):
    picture = ROOT / f"metrics/report/{name}.png"

    assert any(f"metrics/report/{name}.png)" in page.read_text(encoding="utf-8") for page in documents())
    assert picture.stat().st_size < 150_000
