"""The pictures of a run: what they show, that they can be read, and that they are the same bytes each time."""

import sys

import numpy as np
import pytest
from helpers.colours import LEAST_OF_GRAPHICS, LEAST_OF_TEXT, contrast
from PIL import Image

from src.mnist.dataset import CLASS_NAMES
from src.report import figures

PICTURES = ("learning_curves", "confusion_matrix", "mistakes", "reliability")


@pytest.fixture
def as_figures(monkeypatch):
    """The functions of `figures` return matplotlib's figure, not its PNG file."""
    monkeypatch.setattr(figures, "encode_png", lambda figure: figure)


@pytest.fixture
def bins():
    """The columns of a calibration table with two bins, the fifth and the last of ten."""
    return {
        "from": np.array([0.4, 0.9]),
        "to": np.array([0.5, 1.0]),
        "images": np.array([1.0, 3000.0]),
        "confidence": np.array([0.45, 0.96]),
        "accuracy": np.array([0.0, 0.75]),
    }


def with_mistakes(labels: np.ndarray, mistakes: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are one too high at some indices, with these confidences, and right and very sure elsewhere."""
    indices = list(mistakes)
    predicted, confidences = labels.copy(), np.full(len(labels), 0.999)
    predicted[indices] = (labels[indices] + 1) % 10
    confidences[indices] = list(mistakes.values())
    return predicted, confidences


@pytest.mark.parametrize("name", PICTURES)
def test_a_run_leaves_a_small_picture(trained_once, name):
    path = trained_once.path / f"metrics/report/{name}.png"

    assert 5_000 < path.stat().st_size < 150_000


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_opaque_with_a_white_margin(trained_once, name):
    picture = Image.open(trained_once.path / f"metrics/report/{name}.png").convert("RGBA")

    pixels = np.asarray(picture)

    assert (pixels[..., 3] == 255).all()
    for edge in (pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:]):
        assert (edge == 255).all()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_says_nothing_of_when_and_with_what_it_was_made(trained_once, name):
    picture = Image.open(trained_once.path / f"metrics/report/{name}.png")

    assert set(picture.info) == {"dpi"}


def test_drawing_again_elsewhere_gives_the_same_bytes_whatever_matplotlib_is_set_to(trained, trained_once, tmp_path):
    for name in PICTURES:
        (trained.path / f"metrics/report/{name}.png").unlink()
    settings = tmp_path / "matplotlibrc"
    settings.write_text("backend: svg\nfont.family: serif\naxes.facecolor: black\nsavefig.dpi: 30\n")

    # A process of its own: matplotlib and Python read these as they start.
    command = (sys.executable, "-m", "src.report")
    trained.run(*command, MATPLOTLIBRC=str(settings), PYTHONHASHSEED="7", TZ="Asia/Tokyo")

    for name in PICTURES:
        path = f"metrics/report/{name}.png"
        assert (trained.path / path).read_bytes() == (trained_once.path / path).read_bytes(), name


def test_the_learning_curves_show_each_set_from_epoch_1_on(as_figures):
    loss = {"train": [0.9, 0.2], "validation": [0.5, 0.3], "test": [0.4, 0.1]}
    accuracy = {"train": [0.8, 0.9], "validation": [0.85, 0.95], "test": [0.9, 0.99]}

    left, right = figures.learning_curves(loss, accuracy).axes

    for axes, curves in ((left, loss), (right, accuracy)):
        assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == curves
        assert {tuple(line.get_xdata()) for line in axes.lines} == {(1, 2)}


def test_a_set_that_the_run_did_not_have_has_no_learning_curve(as_figures):
    curves = {"train": [0.5], "test": [0.5]}

    left, right = figures.learning_curves(curves, curves).axes

    for axes in (left, right):
        assert [line.get_label() for line in axes.lines] == ["train", "test"]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]


def test_lines_are_told_apart_without_colour(as_figures):
    curves = {"train": [0.5], "validation": [0.5], "test": [0.5]}

    lines = figures.learning_curves(curves, curves).axes[0].lines

    assert len({line.get_linestyle() for line in lines}) == 3
    assert len({line.get_marker() for line in lines}) == 3


def test_lines_stand_out_from_white(as_figures):
    curves = {"train": [0.5], "validation": [0.5], "test": [0.5]}

    lines = figures.learning_curves(curves, curves).axes[0].lines

    for line in lines:
        assert contrast(line.get_color(), "white") >= LEAST_OF_GRAPHICS


def test_the_confusion_matrix_counts_truths_in_rows_and_guesses_in_columns(as_figures):
    actual = np.array([0] * 1234 + [1, 2])
    predicted = np.array([0] * 1234 + [1, 0])

    (axes,) = figures.confusion_matrix(actual, predicted, "abc").axes

    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "1,234", (1, 1): "1", (2, 0): "1"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.get_title() == "Test images, 1 of 1,236 off the diagonal"


@pytest.mark.parametrize("count", [1, 2, 3, 10, *range(30, 50), 100, 1000])
def test_the_counts_of_the_confusion_matrix_can_be_read_on_their_cells(as_figures, count):
    classes = np.array([0] * 1000 + [1] * count)

    (axes,) = figures.confusion_matrix(classes, classes, "ab").axes

    (cells,) = axes.images
    for text, value in zip(axes.texts, (1000, count), strict=True):
        cell_colour = cells.cmap(cells.norm(value))[:3]
        assert contrast(text.get_color(), cell_colour) >= LEAST_OF_TEXT


def test_the_sheet_shows_the_mistakes_in_order_of_falling_confidence(as_figures, digits):
    images, labels = digits
    predicted, confidences = with_mistakes(labels, {10: 0.5, 2000: 0.75, 2001: 0.75, 4999: 0.9})

    axes = figures.most_confident_mistakes(images, labels, predicted, confidences, CLASS_NAMES).axes

    shown = [cell for cell in axes if cell.images]
    assert [cell.get_title() for cell in shown] == [
        "true 9\nguess 0\n90.00%",
        "true 4\nguess 5\n75.00%",
        "true 4\nguess 5\n75.00%",
        "true 0\nguess 1\n50.00%",
    ]
    for cell, index in zip(shown, (4999, 2000, 2001, 10), strict=True):
        assert np.array_equal(cell.images[0].get_array(), images[index])


def test_a_sheet_holds_as_many_mistakes_as_it_has_cells(as_figures, digits):
    images, labels = digits
    predicted, confidences = (labels + 1) % 10, np.linspace(0.1, 1, len(labels))

    axes = figures.most_confident_mistakes(images, labels, predicted, confidences, CLASS_NAMES).axes

    shown = [cell.images[0].get_array() for cell in axes]
    assert len(shown) == 24
    assert np.array_equal(shown[0], images[-1])
    assert np.array_equal(shown[23], images[-24])


def test_a_sheet_without_mistakes_says_so(as_figures, digits):
    images, labels = digits
    confidences = np.full(len(labels), 0.9)

    sheet = figures.most_confident_mistakes(images, labels, labels, confidences, CLASS_NAMES)

    assert sheet.get_suptitle() == "No mistakes"
    assert not any(cell.images for cell in sheet.axes)


def test_the_reliability_diagram_shows_each_bins_accuracy_where_the_bin_lies(as_figures, bins):
    upper, _ = figures.reliability_diagram(bins, 0.21).axes

    bars = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in upper.patches]
    assert bars == [pytest.approx((0.4, 0.5, 0)), pytest.approx((0.9, 1.0, 0.75))]


def test_the_reliability_diagram_marks_each_bins_mean_confidence(as_figures, bins):
    upper, _ = figures.reliability_diagram(bins, 0.21).axes

    (points,) = (line for line in upper.lines if line.get_label() == "at the bin's mean confidence")
    assert points.get_xydata().tolist() == [[0.45, 0], [0.96, 0.75]]


def test_the_reliability_diagram_counts_the_images_in_each_bin(as_figures, bins):
    _, lower = figures.reliability_diagram(bins, 0.21).axes

    assert [bar.get_height() for bar in lower.patches] == [1, 3000]
    assert [text.get_text() for text in lower.texts] == ["1", "3,000"]


def test_the_reliability_diagram_names_the_expected_calibration_error(as_figures, bins):
    upper, _ = figures.reliability_diagram(bins, 0.2134).axes

    assert upper.get_title() == "Reliability on the test set, expected calibration error 21.34%"
