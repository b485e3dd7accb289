"""How far a classifier's confidence can be trusted (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

import numpy as np

BINS = 15  # as in the paper


def calibration_table(confidences: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Count predictions in `BINS` equal-width bins of their confidence; bin m holds ((m - 1) / BINS, m / BINS].

    Args:
        confidences: (N,) float64, the probability of the predicted class, in (0, 1].
        right: (N,) bool, whether the predicted class is the true one.

    Returns:
        A row for each bin that is not empty: its limits, how many predictions it holds, their mean confidence, and the
        share that is right.
    """
    bins = np.ceil(confidences * BINS).astype(int) - 1
    rows = []
    for number in np.unique(bins):
        inside = bins == number
        rows.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "images": int(inside.sum()),
                "confidence": float(confidences[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
        )
    return rows


def expected_calibration_error(table: list[dict[str, float]]) -> float:
    """Average |accuracy - confidence| over the bins, each weighted by its number of predictions."""
    images = np.array([row["images"] for row in table])
    gaps = np.array([abs(row["accuracy"] - row["confidence"]) for row in table])
    return float((gaps * images).sum() / images.sum())
