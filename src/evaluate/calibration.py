"""How far a classifier's confidence can be trusted (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

from typing import NamedTuple

import numpy as np

BINS = 15  # as in the paper


class Calibration(NamedTuple):
    """Predictions counted in `BINS` equal-width bins of their confidence; bin m holds ((m - 1) / BINS, m / BINS]."""

    counts: np.ndarray  # (BINS,) int64
    confidence: np.ndarray  # (BINS,) float64, the mean confidence; NaN in an empty bin
    accuracy: np.ndarray  # (BINS,) float64, the share that is right; NaN in an empty bin

    @property
    def expected_error(self) -> float:
        """The expected calibration error: the mean of |accuracy - confidence|, each bin weighted by its count."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibration(confidences: np.ndarray, right: np.ndarray) -> Calibration:
    """Bin predictions by confidence.

    Args:
        confidences: (N,) float64, the probability of the predicted class, in (0, 1].
        right: (N,) bool, whether the predicted class is the true one.
    """
    bins = np.ceil(confidences * BINS).astype(int) - 1
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin is the NaN that it should be
        confidence = np.bincount(bins, confidences, BINS) / counts
        accuracy = np.bincount(bins, right, BINS) / counts
    return Calibration(counts, confidence, accuracy)
