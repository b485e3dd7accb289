"""``make release-check``: what is committed agrees with itself, and comes from one run on the full MNIST."""

import json
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from PIL import Image

from release.docs import documents, fill
from release.facts import PIPELINES
from reproductions.comparison import MODEL
from reproductions.verify import SAMPLE
from src.pipeline.params import load_params

ROOT = Path(__file__).resolve().parent.parent
MEND = "run `dvc repro -P`; where the result can't have changed, `make lock` does it in seconds"
STAGES = [
    (name, stage)
    for name in PIPELINES
    if (ROOT / name).with_name("dvc.lock").exists()
    for stage in yaml.safe_load((ROOT / name).read_text())["stages"]
]


@pytest.fixture(scope="module")
def stages():
    with Repo(str(ROOT)) as repo:
        yield {(stage.path_in_repo, stage.name): stage for stage in repo.index.stages}


def read(name: str) -> dict:
    return json.loads((ROOT / name).read_text())


@pytest.mark.parametrize("name", STAGES, ids="".join)
def test_the_committed_run_is_of_the_committed_sources_parameters_and_results(stages, name):
    stage = stages[name]
    in_git = [
        dep for dep in stage.deps if dep.def_path.startswith(("src/", "metrics/")) or dep.def_path == "params.yaml"
    ]
    # What a wing's stage makes and neither Git nor the cache keeps is there only where `make reader` ran.
    in_git += [out for out in stage.outs if not out.use_cache and out.def_path.startswith(("data/", "metrics/"))]

    changed = [part.def_path for part in in_git if part.status()]

    assert changed == [], f"{', '.join(changed)} changed since the committed run of {stage.name}: {MEND}"
    assert not stage.cmd_changed, f"the command of {stage.name} changed since the committed run: {MEND}"


def test_the_committed_run_is_of_the_full_mnist():
    manifest, test = read("data/manifest.json"), read("metrics/evaluate/metrics.json")["test"]

    load_params(ROOT / "params.yaml")
    assert (manifest["dataset"], manifest["training_images"]) == ("mnist", 60_000)
    assert test["images"] == 10_000


def test_the_pages_say_what_the_committed_files_say():
    stale = [page.name for page in documents() if fill(text := page.read_text(encoding="utf-8")) != text]

    assert stale == [], "run `make docs`"


def committed_md5(path: str) -> str:
    locks = [yaml.safe_load((ROOT / name).with_name("dvc.lock").read_text()) for name in PIPELINES]
    outs = [out for lock in locks for stage in lock["stages"].values() for out in stage["outs"]]
    return next(out["md5"] for out in outs if out["path"] == path)


def test_the_pictures_were_read_by_the_committed_model_and_the_page_shows_it():
    measured = read("benchmarks/pictures.json")
    with Image.open(ROOT / "docs/demo.png") as picture:
        shown = picture.info.get("model_md5")

    files = {"model_md5": "models/model.safetensors", "outlier_head_md5": "models/outliers.safetensors"}
    committed = {name: committed_md5(path) for name, path in files.items()}
    assert {name: measured[name] for name in files} == committed, "run `python -m benchmarks.pictures --photos 60`"
    assert shown == committed["model_md5"], "run `python -m benchmarks.demo --picture`"


def test_a_reproduction_is_compared_with_the_committed_runs():
    sample, whole = read("reproductions/sample.json"), read("reproductions/whole.json")
    parameters = load_params(ROOT / "params.yaml").model_dump()

    assert whole["model_md5"] == committed_md5(MODEL), "run `python -m reproductions --full --write-reference`"
    assert sample["parameters"] == parameters | SAMPLE, "run `python -m reproductions --write-reference`"
