"""The pictures of a run: what they show, that they can be read, and that they are the same bytes each time."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from src.evaluate import figures
from src.evaluate.calibration import BINS, calibration
from src.pipeline.errors import UserError
from src.pipeline.results import TRAIN_CURVES_DIR, load_curve

PICTURES = ("learning_curves", "confusion_matrix", "mistakes", "reliability")
DIGITS = tuple("0123456789")


@pytest.fixture
def as_figures(monkeypatch):
    """The functions of `figures` return matplotlib's figure, not its PNG file."""
    monkeypatch.setattr(figures, "_png", lambda figure: figure)


def luminance(color):
    """WCAG 2.2, "relative luminance"."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(color)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    """WCAG 2.2, "contrast ratio"."""
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("name", PICTURES)
def test_a_run_leaves_a_small_opaque_picture_with_a_white_margin(trained_once, name):
    path = trained_once.path / f"metrics/evaluate/{name}.png"
    assert path.stat().st_size < 150_000
    image = np.asarray(Image.open(path).convert("RGBA"))
    assert (image[..., 3] == 255).all()
    for edge in (image[:8], image[-8:], image[:, :8], image[:, -8:]):
        assert (edge == 255).all()


def test_evaluating_again_elsewhere_gives_the_same_bytes_whatever_matplotlib_is_set_to(trained, trained_once, tmp_path):
    results = list((trained.path / "metrics/evaluate").iterdir())
    for path in results:
        path.unlink()
    settings = tmp_path / "matplotlibrc"
    settings.write_text("backend: svg\nfont.family: serif\naxes.facecolor: black\nsavefig.dpi: 30\n")
    trained.run("python", "-m", "src.evaluate", MATPLOTLIBRC=str(settings), PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    for path in results:
        assert path.read_bytes() == (trained_once.path / "metrics/evaluate" / path.name).read_bytes(), path.name


def test_the_learning_curves_show_each_set_from_epoch_1_on(as_figures):
    loss = {"train": [0.9, 0.2], "validation": [0.5, 0.3], "test": [0.4, 0.1]}
    accuracy = {"train": [0.8, 0.9], "validation": [0.85, 0.95], "test": [0.9, 0.99]}
    for axes, curves in zip(figures.learning_curves(loss, accuracy).axes, (loss, accuracy), strict=True):
        assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == curves
        assert {tuple(line.get_xdata()) for line in axes.lines} == {(1, 2)}


def test_lines_are_told_apart_without_colour_and_stand_out_from_white(as_figures):
    curves = {"train": [0.5], "validation": [0.5], "test": [0.5]}
    lines = figures.learning_curves(curves, curves).axes[0].lines
    assert len({line.get_linestyle() for line in lines}) == len({line.get_marker() for line in lines}) == 3
    for line in lines:
        assert contrast(line.get_color(), "white") >= 3  # WCAG 2.2, 1.4.11: graphical objects


def test_the_confusion_matrix_counts_truths_in_rows_and_guesses_in_columns(as_figures):
    axes = figures.confusion_matrix(np.array([0] * 1234 + [1, 2]), np.array([0] * 1234 + [1, 0]), "abc").axes[0]
    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "1,234", (1, 1): "1", (2, 0): "1"}
    assert axes.get_title() == "Test images, 1 of 1,236 off the diagonal"


def test_the_counts_of_the_confusion_matrix_can_be_read_on_their_cells(as_figures):
    for count in (1, 2, 3, 10, *range(30, 50), 100, 1000):
        pairs = np.array([0] * 1000 + [1] * count)
        axes = figures.confusion_matrix(pairs, pairs, "ab").axes[0]
        (image,) = axes.images
        for text, value in zip(axes.texts, (1000, count), strict=True):
            assert contrast(text.get_color(), image.cmap(image.norm(value))[:3]) >= 4.5  # WCAG 2.2, 1.4.3: text


def test_the_sheet_shows_the_mistakes_in_order_of_falling_confidence(as_figures, digits):
    images, labels = digits
    guesses = labels.copy()
    wrong = np.array([10, 2000, 2001, 4999])
    guesses[wrong] = (labels[wrong] + 1) % 10
    confidences = np.full(len(labels), 0.999)
    confidences[wrong] = [0.5, 0.75, 0.75, 0.9]
    axes = figures.most_confident_mistakes(images, labels, guesses, confidences, DIGITS).axes
    assert [cell.get_title() for cell in axes if cell.images] == [
        "true 9\nguess 0\n90.00%", "true 4\nguess 5\n75.00%", "true 4\nguess 5\n75.00%", "true 0\nguess 1\n50.00%",
    ]  # fmt: skip
    for cell, index in zip(axes, (4999, 2000, 2001, 10), strict=False):
        assert (cell.images[0].get_array() == images[index]).all()


def test_a_sheet_holds_as_many_mistakes_as_it_has_cells_and_may_hold_none(as_figures, digits):
    images, labels = digits
    rising = np.linspace(0.1, 1, len(labels))
    full = figures.most_confident_mistakes(images, labels, (labels + 1) % 10, rising, DIGITS)
    assert len(full.axes) == figures.SHEET_ROWS * figures.SHEET_COLUMNS
    assert (full.axes[0].images[0].get_array() == images[-1]).all()
    empty = figures.most_confident_mistakes(images, labels, labels, rising, DIGITS)
    assert empty.get_suptitle() == "No mistakes" and not any(cell.images for cell in empty.axes)


def test_the_reliability_diagram_shows_each_bins_accuracy_and_count(as_figures):
    bins = calibration(np.array([0.5, 0.95, 0.96, 0.97]), np.array([False, True, True, False]))
    upper, lower = figures.reliability_diagram(bins).axes
    heights = [bar.get_height() for bar in upper.patches]
    assert heights[7] == 0 and heights[14] == pytest.approx(2 / 3) and np.isnan(heights[:7] + heights[8:14]).all()
    assert [bar.get_height() for bar in lower.patches] == [0] * 7 + [1] + [0] * 6 + [3]
    assert [text.get_text() for text in lower.texts if text.get_text()] == ["1", "3"]
    assert f"error {bins.expected_error:.2%}" in upper.get_title()


def test_the_calibration_error_is_that_of_a_hand_count():
    confidences = np.array([0.64, 0.65, 0.99, 0.99, 0.99, 0.99])  # two bins: (9/15, 10/15] and (14/15, 1]
    right = np.array([True, False, True, True, True, False])
    expected = 2 / 6 * abs(1 / 2 - 0.645) + 4 / 6 * abs(3 / 4 - 0.99)
    assert calibration(confidences, right).expected_error == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0.1, 1), st.booleans()), min_size=1))
def test_the_bins_hold_every_prediction_where_the_paper_puts_it(predictions):
    confidences, right = (np.array(column) for column in zip(*predictions, strict=True))
    bins = calibration(confidences, right)
    assert bins.counts.sum() == len(predictions)
    assert np.nansum(bins.accuracy * bins.counts) == pytest.approx(right.sum())
    for index in np.flatnonzero(bins.counts):
        assert index / BINS - 1e-9 <= bins.confidence[index] <= (index + 1) / BINS + 1e-9
    assert 0 <= bins.expected_error <= 1


def test_the_calibration_error_is_among_the_metrics(trained_once):
    shown = json.loads(trained_once.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert 0 < shown["metrics/evaluate/metrics.json"]["data"]["test"]["expected_calibration_error"] < 1


def test_a_picture_says_nothing_of_when_and_with_what_it_was_made(trained_once):
    for name in PICTURES:
        assert set(Image.open(trained_once.path / f"metrics/evaluate/{name}.png").info) == {"dpi"}


def test_a_missing_or_damaged_learning_curve_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = TRAIN_CURVES_DIR / "train/loss.tsv"
    with pytest.raises(UserError, match=r"train/loss\.tsv is missing or damaged; run `dvc repro train`"):
        load_curve("loss")
    file.parent.mkdir(parents=True)
    for content in ("step\taccuracy\n0\t0.5\n", "step\tloss\n0\n", "step\tloss\n0\tmuch\n", "step\tloss\n0\t\xff\n"):
        file.write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match=r"train/loss\.tsv is missing or damaged"):
            load_curve("loss")
