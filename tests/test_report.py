"""The page about the run, ``metrics/report.md``."""

import json
import re

import pytest
from helpers.project import QUICK, quick_params

from src.report.stage import main
from src.report.page import write_page

RESULTS = (
    "metrics/train/plots/metrics/test/accuracy.tsv",
    "metrics/evaluate/metrics.json",
    "metrics/evaluate/predictions.csv",
    "metrics/evaluate/classes.csv",
    "metrics/evaluate/calibration.csv",
    "models/run.json",
)

FULL = quick_params(dataset="mnist", weights="imagenet", epochs=3)
RUN = {
    "device": "NVIDIA H100",
    "precision": "bfloat16",
    "threads": 16,
    "torch": "2.9.0",
    "dataset": "mnist",
    "initial_weights": "imagenet1k_v1",
    "initial_weights_sha256": "f37072fd",
}
TRAIN = {
    "train": {"loss": 0.25, "accuracy": 0.9},
    "validation": {"loss": 0.125, "accuracy": 0.95},
    "step": 3,
    "training_images": 57_000,
}
TEST = {"loss": 0.0625, "accuracy": 0.8766, "errors": 1234, "images": 10_000, "calibration_error": 0.0375}
CLASSES = {"class": ["0", "1"], "precision": [0.5, 1.0], "recall": [0.25, 0.75], "f1": [1 / 3, 6 / 7]}


@pytest.fixture(scope="module")
def page(trained_once):
    """The page of a run on the sample."""
    return trained_once.read("metrics/report.md")


@pytest.fixture(scope="module")
def full_page():
    """The page of an invented run on the full MNIST."""
    return write_page(FULL, TRAIN, TEST, RUN, CLASSES)


def rows(page: str, heading: str) -> dict[str, str]:
    """The cells of a table with two columns, by the cell before them, from the section under ``heading``."""
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `?([\w ]+?)`? \| `(.+)` \|$", section, re.M))


def metrics(project, stage):
    """A stage's metrics."""
    return json.loads(project.read(f"metrics/{stage}/metrics.json"))


def test_the_page_of_a_sample_says_what_was_trained_on_what_from_which_weights(page):
    assert (
        "ResNet-18 from random weights, trained for 1 epoch on 3,800 images of a sample of 5,000 MNIST digits, "
        "tested on 1,000." in page
    )


def test_the_page_of_the_full_mnist_says_what_was_trained_on_what_from_which_weights(full_page):
    assert (
        "ResNet-18 from imagenet1k_v1 weights, trained for 3 epochs on 57,000 images of MNIST, tested on 10,000."
        in full_page
    )


@pytest.mark.parametrize(
    ("used", "missing"),
    [
        ({"dataset": "sample"}, "MNIST"),
        ({"initial_weights": "random"}, "The ImageNet weights"),
        ({"dataset": "sample", "initial_weights": "random"}, "MNIST and the ImageNet weights"),
    ],
)
def test_the_page_says_what_could_not_be_downloaded_and_what_to_type(used, missing):
    page = write_page(FULL, TRAIN, TEST, RUN | used, CLASSES)

    assert (
        f"**{missing} could not be downloaded.** Once the network is there: `dvc repro -f download && dvc repro`."
        in page
    )


def test_the_page_says_nothing_of_downloads_where_the_run_used_what_it_was_asked_for(page, full_page):
    assert "download" not in page
    assert "download" not in full_page


def test_the_page_begins_with_the_test_accuracy_the_errors_and_the_calibration_error(full_page):
    assert "**87.66% test accuracy**: 1,234 errors. Expected calibration error 3.75%." in full_page


def test_the_page_gives_loss_and_accuracy_of_each_set(full_page):
    assert (
        "| set | mean loss per image | accuracy |\n"
        "| --- | --- | --- |\n"
        "| train | 0.2500 | 90.00% |\n"
        "| validation | 0.1250 | 95.00% |\n"
        "| test | 0.0625 | 87.66% |\n"
    ) in full_page


def test_a_run_without_a_validation_set_has_no_row_for_it():
    train = {name: value for name, value in TRAIN.items() if name != "validation"}

    page = write_page(FULL, train, TEST, RUN, CLASSES)

    assert re.findall(r"^\| (train|validation|test) \|", page, re.M) == ["train", "test"]


def test_the_page_gives_precision_recall_and_f1_of_each_class(full_page):
    assert (
        "| class | precision | recall | F1 |\n"
        "| --- | --- | --- | --- |\n"
        "| 0 | 50.00% | 25.00% | 33.33% |\n"
        "| 1 | 100.00% | 75.00% | 85.71% |\n"
    ) in full_page


def test_the_page_says_what_the_run_used(full_page):
    used = rows(full_page, "What the run used")

    assert used == {
        "device": "NVIDIA H100",
        "precision": "bfloat16",
        "threads": "16",
        "torch": "2.9.0",
        "dataset": "mnist",
        "initial weights": "imagenet1k_v1",
        "initial weights sha256": "f37072fd",
    }


def test_what_the_page_says_that_the_run_used_is_what_train_wrote(page, trained_once):
    written = json.loads(trained_once.read("models/run.json"))

    used = rows(page, "What the run used")

    assert {"device", "precision", "threads", "torch", "dataset", "initial_weights"} <= written.keys()
    assert used == {name.replace("_", " "): str(value) for name, value in written.items()}


def test_the_page_says_what_was_used_where_something_else_was_asked_for(page):
    asked, used = rows(page, "What it was asked for"), rows(page, "What the run used")

    assert (asked["precision"], asked["threads"]) == ('"auto"', "0")
    assert used["precision"] in ("float32", "bfloat16")
    assert int(used["threads"]) > 0


def test_the_page_lists_every_parameter_with_its_value(page):
    asked = rows(page, "What it was asked for")

    assert {name: json.loads(value) for name, value in asked.items()} == QUICK


@pytest.mark.parametrize("name", ["learning_curves", "confusion_matrix", "mistakes", "reliability"])
def test_the_page_shows_a_picture_by_a_link_that_holds_where_it_lies(page, trained_once, name):
    links = re.findall(r"^!\[.+\]\((.+)\)$", page, re.M)

    assert links.count(f"report/{name}.png") == 1
    assert (trained_once.path / f"metrics/report/{name}.png").is_file()


def test_the_page_gives_the_figures_of_the_metrics_files(page, trained_once):
    train, test = metrics(trained_once, "train"), metrics(trained_once, "evaluate")["test"]

    assert f"| train | {train['train']['loss']:.4f} | {train['train']['accuracy']:.2%} |" in page
    assert f"| validation | {train['validation']['loss']:.4f} | {train['validation']['accuracy']:.2%} |" in page
    assert f"| test | {test['loss']:.4f} | {test['accuracy']:.2%} |" in page
    assert f"{test['errors']} errors. Expected calibration error {test['calibration_error']:.2%}." in page


def test_changed_figures_change_the_page(trained):
    results = metrics(trained, "evaluate")
    results["test"]["errors"] = 1234
    (trained.path / "metrics/evaluate/metrics.json").write_text(json.dumps(results))
    table = trained.read("metrics/evaluate/classes.csv").splitlines()
    table[1] = "0,0.125,0.25,0.1666666667"
    (trained.path / "metrics/evaluate/classes.csv").write_text("\n".join(table) + "\n")

    trained.run("python", "-m", "src.report")

    page = trained.read("metrics/report.md")
    assert "1,234 errors" in page
    assert "| 0 | 12.50% | 25.00% | 16.67% |" in page


def test_a_missing_result_is_one_line_without_a_traceback(trained, fails):
    (trained.path / "metrics/train/metrics.json").unlink()

    done = trained.run("python", "-m", "src.report", ok=False)

    fails(done, "metrics/train/metrics.json", "dvc repro")


@pytest.mark.parametrize("result", RESULTS)
def test_each_missing_result_is_named(trained, monkeypatch, result):
    monkeypatch.chdir(trained.path)
    (trained.path / result).unlink()

    with pytest.raises(SystemExit, match=rf"error: {result} is missing or damaged; run `dvc repro`"):
        main()


@pytest.mark.parametrize("name", ["evaluate/predictions.csv", "evaluate/classes.csv", "evaluate/calibration.csv"])
def test_a_table_without_a_column_is_damaged(trained, monkeypatch, name):
    monkeypatch.chdir(trained.path)
    table = trained.path / "metrics" / name
    table.write_text("another\n0.5\n")

    with pytest.raises(SystemExit, match=rf"error: metrics/{name} is missing or damaged"):
        main()


@pytest.mark.parametrize(
    "content", ["step\taccuracy\n1\t0.5\n", "step\tloss\n1\n", "step\tloss\n1\tmuch\n", "step\tloss\n1\t\xff\n"]
)
def test_a_curve_that_is_none_is_damaged(trained, monkeypatch, content):
    monkeypatch.chdir(trained.path)
    curve = trained.path / "metrics/train/plots/metrics/train/loss.tsv"
    curve.write_text(content, encoding="latin-1")

    with pytest.raises(SystemExit, match=r"error: metrics/train/plots/metrics/train/loss\.tsv is missing or damaged"):
        main()
