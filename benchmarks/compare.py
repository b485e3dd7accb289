"""Whether one recipe is better than another: the same images in pairs, over all seeds, by writer."""

import lzma
from collections.abc import Sequence

import numpy as np

from benchmarks.recipes import HELD_OUT
from src.images.dataset import Images
from src.pipeline.paths import WRITERS_FILES
from src.pipeline.project import ROOT
from src.sampling.split import split_validation

DRAWS = 10_000


def writers_of(name: str) -> np.ndarray:
    """Read who wrote each image of ``test``, or of the ``validation`` set of the sweep: (10000,)."""
    file = WRITERS_FILES["test" if name == "test" else "train"]
    writers = np.frombuffer(lzma.decompress((ROOT / file).read_bytes()), "<u2")
    if name == "test":
        return writers
    numbers = Images(np.arange(len(writers)), np.zeros(len(writers), int))
    _, validation = split_validation(numbers, HELD_OUT, writers)
    assert validation is not None
    return writers[validation.images]


def compare(
    ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], writers: np.ndarray
) -> tuple[float, float, float, float]:
    """Estimate by how much one recipe's accuracy is above another's, by a bootstrap over writers and seeds.

    Each draw takes as many writers as there are, with replacement, and for each recipe as many seeds (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 15).

    Args:
        ours: for each seed the numbers of the images that it got wrong.
        theirs: the same of the other recipe, on the same images.
        writers: (N,) of each image.

    Returns:
        The difference, the ends of its 95% interval, and the two-sided p-value of no difference.
    """
    names, members = np.unique(writers, return_inverse=True)
    draws = np.random.default_rng(0)
    weights = draws.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    images = weights @ np.bincount(members)
    rates, means = [], []
    for runs in (ours, theirs):
        errors = np.array([np.bincount(members[list(wrong)], minlength=len(names)) for wrong in runs])
        seeds = draws.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), DRAWS) / len(runs)
        rates.append((seeds @ errors * weights).sum(1) / images)
        means.append(errors.sum() / len(runs) / len(writers))
    drawn = rates[1] - rates[0]
    low, high = np.quantile(drawn, (0.025, 0.975))
    p = 2 * min((drawn <= 0).mean(), (drawn >= 0).mean())
    return means[1] - means[0], float(low), float(high), min(1.0, max(float(p), 1 / DRAWS))


def against(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], writers: np.ndarray) -> str:
    """Format `compare` for a table; "-" for a recipe against itself."""
    if ours == theirs:
        return "-"
    difference, low, high, p = compare(ours, theirs, writers)
    return f"{difference:+.2%} ({low:+.2%} to {high:+.2%}), p = {p:.2g}"
