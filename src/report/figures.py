"""The pictures of a run as PNG files: the same bytes for the same numbers, whatever matplotlib is set to here.

Opaque white with a margin, so that a dark page shows them as cards. Colours are Okabe and Ito's
(https://jfly.uni-koeln.de/color/), made for colour-blind readers, and never the only difference: lines differ in dash
and marker too, and each cell and bar carries its number.
"""

import io
import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import sklearn.metrics
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#666666"
LINES = {
    "train": {"color": GREY, "linestyle": ":", "marker": "s"},
    "validation": {"color": VERMILION, "linestyle": "--", "marker": "^"},
    "test": {"color": BLUE, "linestyle": "-", "marker": "o"},
}
WIDTH = 8  # inches
SHEET_COLUMNS, SHEET_ROWS = 8, 3
MOST_NUMBERED, MOST_NAMED = 20, 50  # classes: more of them have cells without numbers, and some of them no name
LONGEST_NAME = 12  # characters
STYLE = {
    **matplotlib.rcParamsDefault,  # a matplotlibrc of this machine changes nothing
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.h_pad": 0.12,  # inches
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.dpi": 110,
    "figure.titlesize": "large",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "grid.alpha": 0.4,
    "savefig.dpi": "figure",
}


@matplotlib.rc_context(STYLE)
def learning_curves(loss: Mapping[str, Sequence[float]], accuracy: Mapping[str, Sequence[float]]) -> bytes:
    """Draw loss (log scale) and accuracy by epoch, a line for each set that the run had."""
    figure = Figure(figsize=(WIDTH, 3.6))
    left, right = figure.subplots(1, 2)
    for axes, curves in ((left, loss), (right, accuracy)):
        for name, values in curves.items():
            axes.plot(range(1, len(values) + 1), values, label=name, markersize=4.5, linewidth=1.6, **LINES[name])
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
        axes.legend()
    left.set_title("Mean cross-entropy per image")
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_locator(NullLocator())
    right.set_title("Accuracy")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    return encode_png(figure)


@matplotlib.rc_context(STYLE)
def confusion_matrix(actual: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Draw how many images of each true class (row) got which class (column). A cell without images stays blank.

    Args:
        actual: (N,) integers, indices of ``class_names``.
        predicted: the same of the predicted class.
    """
    classes = len(class_names)
    counts = sklearn.metrics.confusion_matrix(actual, predicted, labels=range(classes))
    figure = Figure(figsize=(WIDTH, 7))
    axes = figure.subplots()
    most = max(10, counts.max())
    axes.imshow(np.ma.masked_equal(counts, 0), cmap="Blues", norm=LogNorm(1, most))  # or 1 and 100 would look alike
    for (row, column), count in np.ndenumerate(counts):
        if count and classes <= MOST_NUMBERED:
            color = "white" if count > most**0.715 else "black"  # on Blues(0.715), both contrast by 4.5
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize="small")
    ticks = range(0, classes, math.ceil(classes / MOST_NAMED))
    names = [shorten(class_names[tick]) for tick in ticks]
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(ticks, names)
    if classes <= MOST_NUMBERED:
        axes.set_xticks(np.arange(-0.5, classes), minor=True)
        axes.set_yticks(np.arange(-0.5, classes), minor=True)
        axes.grid(which="minor", color="#CCCCCC", alpha=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"Test images, {counts.sum() - counts.trace():,} of {counts.sum():,} off the diagonal")
    return encode_png(figure)


@matplotlib.rc_context(STYLE)
def most_confident_mistakes(
    images: np.ndarray,
    actual: np.ndarray,
    predicted: np.ndarray,
    confidences: np.ndarray,
    class_names: Sequence[str],
    doubted: np.ndarray,
) -> bytes:
    """Draw the misclassified images, each with its true class, the predicted one and the probability of that.

    Args:
        images: (N, H, W) uint8, right ones and wrong ones.
        actual: (N,) integers, indices of ``class_names``.
        predicted: the same of the predicted class.
        confidences: (N,) float64, the probability of the predicted class.
        doubted: (N,) bool, whether people doubt the true class.
    """
    wrong = np.flatnonzero(predicted != actual)
    wrong = wrong[np.argsort(-confidences[wrong], kind="stable")]
    figure = Figure(figsize=(WIDTH, 4.8))
    figure.suptitle("The most confident mistakes" if len(wrong) else "No mistakes")
    if doubted[wrong[: SHEET_ROWS * SHEET_COLUMNS]].any():
        figure.supxlabel("? people doubt this label", fontsize="small")
    cells = figure.subplots(SHEET_ROWS, SHEET_COLUMNS).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, i in zip(cells, wrong, strict=False):
        axes.imshow(images[i], cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        truth, guess = shorten(class_names[actual[i]]), shorten(class_names[predicted[i]])
        mark = "?" if doubted[i] else ""
        axes.set_title(f"true {truth}{mark}\nguess {guess}\n{confidences[i]:.2%}", fontsize="small")
    return encode_png(figure)


@matplotlib.rc_context(STYLE)
def reliability_diagram(bins: Mapping[str, np.ndarray], expected_error: float) -> bytes:
    """Draw accuracy against confidence in each bin, with the diagonal of a perfectly calibrated model, and the counts.

    Args:
        bins: the columns of `evaluate`'s calibration table, which has no empty bins: ``from``, ``to``, ``images``,
            ``confidence``, ``accuracy``.
        expected_error: the expected calibration error.
    """
    figure = Figure(figsize=(WIDTH, 6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_bins(upper, bins, "accuracy", "accuracy in the bin")
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect calibration")
    upper.plot(
        bins["confidence"], bins["accuracy"],
        color=VERMILION, linestyle="none", marker="D", label="at the bin's mean confidence",
    )  # fmt: skip
    upper.set_title(f"Reliability on the test set, expected calibration error {expected_error:.2%}")
    upper.set_ylabel("accuracy")
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    upper.grid(axis="y")
    upper.legend(loc="upper left")
    bars = _draw_bins(lower, bins, "images", "images in the bin")
    lower.bar_label(bars, [f"{count:,.0f}" for count in bins["images"]], fontsize="x-small", padding=1)
    lower.set_yscale("log")
    lower.set_ylim(0.5, bins["images"].max() * 6)
    lower.set_ylabel("images")
    lower.set_xlabel("confidence")
    lower.set_xlim(0, 1)
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    return encode_png(figure)


def _draw_bins(axes: Axes, bins: Mapping[str, np.ndarray], column: str, label: str) -> BarContainer:
    widths = bins["to"] - bins["from"]
    return axes.bar(bins["from"], bins[column], widths, align="edge", color="#A6D3EC", edgecolor=BLUE, label=label)


def shorten(name: str) -> str:
    """Shorten a class's name to `LONGEST_NAME`."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def encode_png(figure: Figure) -> bytes:
    """Encode ``figure`` as PNG, without the version of matplotlib in it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
