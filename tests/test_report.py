"""The page about the run, ``metrics/report.md``."""

import json
import re

import pytest

from src.pipeline.params import load_params
from src.report.__main__ import report


@pytest.fixture(scope="module")
def page(trained_once):
    return trained_once.read("metrics/report.md")


def metrics(project, stage):
    return json.loads(project.read(f"metrics/{stage}/metrics.json"))


def test_the_page_says_what_was_trained_on_what_from_which_weights(page):
    assert (
        "ResNet-18 from random weights, trained for 1 epoch on 3,800 images of a sample of 5,000 MNIST digits" in page
    )
    assert "tested on 1,000." in page


def test_the_page_gives_the_figures_of_the_metrics_files(page, trained_once):
    train, evaluate = metrics(trained_once, "train"), metrics(trained_once, "evaluate")
    for name in ("train", "validation", "test"):
        assert f"| {name} | {train[name]['loss']:.4f} | {train[name]['accuracy']:.2%} |" in page
    test = evaluate["test"]
    assert f"**{test['accuracy']:.2%} test accuracy**: {test['errors']} errors." in page
    assert f"Expected calibration error {test['expected_calibration_error']:.2%}." in page
    for name, row in evaluate["per_class"].items():
        assert f"| {name} | {row['precision']:.2%} | {row['recall']:.2%} | {row['f1']:.2%} |" in page


def test_a_changed_metrics_file_changes_the_page(trained):
    changed = trained.read("metrics/evaluate/metrics.json").replace('"errors": ', '"errors": 1')
    (trained.path / "metrics/evaluate/metrics.json").write_text(changed)
    trained.run("python", "-m", "src.report")
    assert f"{metrics(trained, 'evaluate')['test']['errors']:,} errors" in trained.read("metrics/report.md")


def test_the_page_lists_every_parameter_with_its_value(page, trained_once):
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+)` \|$", page, re.M))
    params = load_params(trained_once.path / "params.yaml").model_dump()
    assert {name: json.loads(value) for name, value in rows.items()} == params


def test_the_page_shows_the_pictures_by_links_that_hold_where_it_lies(page, trained_once):
    links = re.findall(r"^!\[.+\]\((.+)\)$", page, re.M)
    assert {
        f"evaluate/{name}.png" for name in ("learning_curves", "confusion_matrix", "mistakes", "reliability")
    } == set(links)
    for link in links:
        assert (trained_once.path / "metrics" / link).is_file()


def test_a_run_without_a_validation_set_has_no_row_for_it(trained_once):
    train = metrics(trained_once, "train")
    del train["validation"]
    text = report(load_params(trained_once.path / "params.yaml"), train, metrics(trained_once, "evaluate"))
    assert re.findall(r"^\| (train|validation|test) \|", text, re.M) == ["train", "test"]


def test_missing_metrics_are_a_clear_line(trained, fails):
    (trained.path / "metrics/train/metrics.json").unlink()
    fails(trained.run("python", "-m", "src.report", ok=False), "metrics/train/metrics.json", "dvc repro")
