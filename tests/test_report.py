"""The page about a run, ``metrics/report.md``, and its pictures: what they show, and the same bytes each time."""

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers.project import quick_params
from matplotlib.colors import to_rgb
from PIL import Image

from src.images.dataset import DIGITS, load_images, load_manifest
from src.pipeline.process import UserError
from src.report import figures, stage
from src.report.page import write_page

PICTURES = ("learning_curves", "confusion_matrix", "mistakes", "reliability")

# The page

FULL = quick_params(dataset="mnist", weights="imagenet", epochs=3)
RUN = {
    "device": "NVIDIA H100",
    "threads": 16,
    "network": "resnet18",
    "dataset": "mnist",
    "test_split": "published",
    "validation_split": "writer",
    "initial_weights": "imagenet1k_v1",
}
TRAIN = {
    "train": {"loss": 0.25, "accuracy": 0.9},
    "validation": {"loss": 0.125, "accuracy": 0.95},
    "step": 3,
    "training_images": 57_000,
}
TEST = {
    "loss": 0.0625,
    "accuracy": 0.8766,
    "standard_error": 0.0051,
    "errors": 1234,
    "images": 10_000,
    "calibration_error": 0.0375,
}
DOUBTFUL = {"images": 15, "errors": 7, "accuracy": 0.8772}
CLASSES = {"class": ["0", "1"], "precision": [0.5, 1.0], "recall": [0.25, 0.75], "f1": [1 / 3, 6 / 7]}


def test_the_page_of_a_run_is_as_expected():
    page = write_page(FULL, TRAIN, TEST, RUN, CLASSES, DOUBTFUL)

    expected = (Path(__file__).parent / "expected_report.md").read_text()
    assert page.startswith(expected)
    assert page.count("\n| `") == len(FULL.model_dump())
    assert '| `dataset` | `"mnist"` |' in page


def test_the_page_of_a_run_without_mnist_says_so_and_what_to_type():
    page = write_page(FULL, TRAIN, TEST, RUN | {"dataset": "sample", "validation_split": "class"}, CLASSES, {})

    assert re.search(r"^\*\*MNIST could not be .*`dvc repro -f download && dvc repro`", page, re.M)
    assert "doubt" not in page


def test_doubtful_labels_are_counted_with_their_errors_and_the_accuracy_without_them():
    right, doubted = np.array([True, True, False, False]), np.array([False, True, True, False])

    assert stage.summarise_doubtful(right, doubted) == {"images": 2, "errors": 1, "accuracy": 0.5}
    assert stage.summarise_doubtful(right, np.zeros(4, bool)) == {}


# The stage


@pytest.fixture
def in_trained(trained, monkeypatch):
    """The working folder is a project's that was trained."""
    monkeypatch.chdir(trained.path)


def test_the_stage_draws_and_writes_down_the_figures_of_the_run_and_the_test_images(in_trained, monkeypatch):
    drawn = {}
    for name in ("learning_curves", "confusion_matrix", "most_confident_mistakes", "reliability_diagram"):
        monkeypatch.setattr(stage, name, lambda *values, name=name: drawn.update({name: values}) or name.encode())

    Path("metrics/report.md").unlink()
    stage.main()

    loss, accuracy = drawn["learning_curves"]
    assert list(loss) == list(accuracy) == ["train", "validation", "test"]
    for name, curves in (("loss", loss), ("accuracy", accuracy)):
        assert curves["test"] == [np.genfromtxt(f"metrics/train/plots/metrics/test/{name}.tsv")[1, 1]]
    images, actual, predicted, confidences, names, doubted = drawn["most_confident_mistakes"]
    assert not doubted.any()  # the numbers of such images are of the whole set
    test_set = load_images(load_manifest(), "test")
    assert all(map(np.array_equal, (images, actual), (test_set.images, test_set.labels)))
    assert all(map(np.array_equal, drawn["confusion_matrix"], (actual, predicted, names)))
    test = json.loads(Path("metrics/evaluate/metrics.json").read_text())["test"]
    assert (predicted != actual).sum() == test["errors"]
    bins, expected_error = drawn["reliability_diagram"]
    assert bins["images"].sum() == len(confidences) == 1000
    assert expected_error == test["calibration_error"]
    files = {path.stem: path.read_text() for path in Path("metrics/report").iterdir()}
    assert files == dict(zip(PICTURES, drawn, strict=True))
    train = json.loads(Path("metrics/train/metrics.json").read_text())["train"]
    for name, metrics in (("train", train), ("test", test)):
        assert (
            f"| {name} | {metrics['loss']:.4f} | {metrics['accuracy']:.2%} |" in Path("metrics/report.md").read_text()
        )


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ("models/run.json", None),
        ("metrics/evaluate/predictions.csv", "actual,predicted,confidence\n0,ten,0.5\n"),
        ("metrics/train/plots/metrics/train/loss.tsv", "step\tloss\n1\tmuch\n"),
    ],
)
def test_a_result_that_is_missing_or_damaged_is_named(in_trained, result, content):
    if content:
        Path(result).write_text(content)
    else:
        Path(result).unlink()

    with pytest.raises(UserError, match=f"^{result} .*dvc repro"):
        stage.main()


# Pictures as files


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_opaque_with_a_white_margin_and_says_nothing_of_its_making(trained_once, name):
    path = trained_once.path / f"metrics/report/{name}.png"
    picture = Image.open(path)

    pixels = np.asarray(picture.convert("RGBA"))

    assert path.stat().st_size < 150_000
    assert set(picture.info) == {"dpi"}
    assert (pixels[..., 3] == 255).all()
    for edge in (pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:]):
        assert (edge == 255).all()


# What the pictures show


def test_a_matplotlibrc_of_this_machine_changes_no_picture():
    curves = {"test": [0.2, 0.1]}
    picture = figures.learning_curves(curves, curves)

    with matplotlib.rc_context({"axes.facecolor": "black", "lines.linewidth": 9}):
        assert figures.learning_curves(curves, curves) == picture


@pytest.fixture
def as_figures(monkeypatch):
    """The functions of `figures` return matplotlib's figure, not its PNG file."""
    monkeypatch.setattr(figures, "encode_png", lambda figure: figure)


def test_the_learning_curves_show_each_set_that_the_run_had_from_epoch_1_on(as_figures):
    loss = {"train": [0.9, 0.2], "test": [0.8, 0.3]}
    accuracy = {"train": [0.8, 0.9], "test": [0.85, 0.95]}

    left, right = figures.learning_curves(loss, accuracy).axes

    for axes, curves in ((left, loss), (right, accuracy)):
        assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == curves
        assert {tuple(line.get_xdata()) for line in axes.lines} == {(1, 2)}
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")


def test_the_confusion_matrix_counts_truths_in_rows_and_guesses_in_columns(as_figures):
    actual = np.array([0] * 1234 + [1, 2])
    predicted = np.array([0] * 1234 + [1, 0])

    (axes,) = figures.confusion_matrix(actual, predicted, "abc").axes

    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "1,234", (1, 1): "1", (2, 0): "1"}
    assert axes.images[0].get_array().data.tolist() == [[1234, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def luminance(color: object) -> float:
    """The "relative luminance" of one of matplotlib's colours, from 0 for black to 1 for white."""
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(color)]
    return np.dot((0.2126, 0.7152, 0.0722), parts)


@pytest.mark.parametrize("count", [1, *range(30, 50), 1000])
def test_the_counts_of_the_confusion_matrix_can_be_read_on_their_cells(as_figures, count):
    classes = np.array([0] * 1000 + [1] * count)

    (axes,) = figures.confusion_matrix(classes, classes, "ab").axes

    (cells,) = axes.images
    for text, value in zip(axes.texts, (1000, count), strict=True):
        darker, lighter = sorted(map(luminance, (text.get_color(), cells.cmap(cells.norm(value))[:3])))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # by WCAG 2.2, 1.4.3: https://www.w3.org/TR/WCAG22/


@pytest.mark.parametrize(
    ("mistakes", "shown"),
    [
        ({10: 0.5, 2000: 0.75, 2001: 0.75, 4999: 0.9}, [4999, 2000, 2001, 10]),
        ({number: number / 100 for number in range(30, 70)}, range(69, 45, -1)),  # as many as there are cells
        ({}, []),
    ],
)
def test_the_sheet_shows_the_mistakes_in_order_of_falling_confidence(as_figures, digits, mistakes, shown):
    images, labels = digits
    predicted, confidences = labels.copy(), np.full(len(labels), 0.999)
    for index, confidence in mistakes.items():
        predicted[index], confidences[index] = (labels[index] + 1) % 10, confidence

    doubted = np.arange(len(labels)) % 2 == 0
    sheet = figures.most_confident_mistakes(images, labels, predicted, confidences, DIGITS, doubted)

    cells = [cell for cell in sheet.axes if cell.images]
    for cell, index in zip(cells, shown, strict=True):
        mark = "?" if index % 2 == 0 else ""
        assert cell.get_title() == f"true {labels[index]}{mark}\nguess {predicted[index]}\n{mistakes[index]:.2%}"
        assert np.array_equal(cell.images[0].get_array(), images[index])


def test_the_reliability_diagram_shows_the_accuracy_confidence_and_images_of_each_bin(as_figures):
    names = ("from", "to", "images", "confidence", "accuracy")
    rows = np.array([[0.4, 0.5, 1, 0.45, 0], [0.9, 1, 3000, 0.96, 0.75]])

    upper, lower = figures.reliability_diagram(dict(zip(names, rows.T, strict=True)), 0.2134).axes

    bars = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in upper.patches]
    assert bars == [pytest.approx((0.4, 0.5, 0)), pytest.approx((0.9, 1.0, 0.75))]
    assert upper.lines[1].get_xydata().tolist() == [[0.45, 0], [0.96, 0.75]]
    assert [bar.get_height() for bar in lower.patches] == [1, 3000]
