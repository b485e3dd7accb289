"""Recognising the digit in a picture: the guesses at its ink, and what the model predicts for each."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from src.images.dataset import SIDE
from src.reader.export.onnx_classifier import OnnxClassifier
from src.reader.head.outlier_head import HEAD_FILE, Predictions, TorchClassifier
from src.reader.ink import Guess, ink_from_border, ink_from_strokes, split, thicken
from src.reader.outliers.mnist_style import to_mnist_style
from src.resnet.inference import SHIFTS
from src.resnet.machine import Machine

EMPTY, SEVERAL, UNLIKE = "an empty picture", "more than one digit", "unlike any digit"
SURE = -8.0  # a first guess that costs no more is taken at once

Classifier = TorchClassifier | OnnxClassifier


class Reading(NamedTuple):
    """What was recognised in a picture."""

    mnist_image: np.ndarray  # (28, 28) uint8, what the network saw; all 0 for an empty picture
    probabilities: dict[str, float]  # of each class, the likeliest first; none for an empty picture
    warning: str | None  # `EMPTY`, `SEVERAL`, `UNLIKE`, or None


class Candidate(NamedTuple):
    """A guess at the ink, in MNIST's style, and what the model predicts for it."""

    guess: Guess
    mnist_image: np.ndarray
    logits: torch.Tensor
    outlier_score: float

    @property
    def cost(self) -> float:
        """What must be lowest: how unlike a digit it is, and how unlikely it is to be the ink at all."""
        return (0 if np.isnan(self.outlier_score) else self.outlier_score) + self.guess.penalty


def load_classifier(model_file: Path, machine: Machine) -> Classifier:
    """Load either file of a trained model, by the end of its name, with the outlier head that lies beside it.

    Without a head only an empty picture gets a warning. Raises `UserError` where a file is missing, damaged, or not of
    this project, or where the head belongs to another model.
    """
    if model_file.suffix.lower() == ".onnx":
        return OnnxClassifier(model_file)
    head_file = model_file.with_name(HEAD_FILE.name)
    return TorchClassifier(model_file, machine, head_file if head_file.exists() else None)


def recognise(pictures: Sequence[np.ndarray], classifier: Classifier, copies: int = 1) -> list[Reading]:
    """Recognise one digit in each of the ``pictures``, (H, W) float32 in [0, 255], dark on light or light on dark.

    The probabilities are the means over ``copies`` of what the network sees, shifted by the first of `SHIFTS`.
    """
    first = _candidates([filter(None, [ink_from_border(picture)]) for picture in pictures], classifier)
    others = [
        [] if one and one[0].cost < SURE else ink_from_strokes(picture, one[0].guess.dark if one else None)
        for picture, one in zip(pictures, first, strict=True)
    ]
    pairs = zip(first, _candidates(others, classifier), strict=True)
    best = [min([*one, *more], key=lambda candidate: candidate.cost, default=None) for one, more in pairs]
    readings = _readings([one for one in best if one], classifier, copies)
    return [next(readings) if one else Reading(np.zeros((SIDE, SIDE), np.uint8), {}, EMPTY) for one in best]


def _candidates(guesses: Iterable[Iterable[Guess]], classifier: Classifier) -> list[list[Candidate]]:
    """Have the model look at each picture's guesses, at all of them together."""
    of_pictures = [list(of_picture) for of_picture in guesses]
    images, predictions = _predict([guess.ink for of_picture in of_pictures for guess in of_picture], classifier)
    each = zip(images, predictions.logits, predictions.outlier_scores.tolist(), strict=True)
    return [[Candidate(guess, *next(each)) for guess in of_picture] for of_picture in of_pictures]


def _readings(found: Sequence[Candidate], classifier: Classifier, copies: int) -> Iterator[Reading]:
    if not found:
        return
    seen = torch.from_numpy(np.array([one.mnist_image for one in found]))
    shifted = [classifier.predict(seen.roll(shift, (1, 2))).logits for shift in SHIFTS[1:copies]]
    logits = torch.stack([torch.stack([one.logits for one in found]), *shifted])
    parts = [split(one.guess.ink) for one in found]
    _, of_parts = _predict([ink for of_one in parts for ink in of_one], classifier)
    scores = iter(of_parts.outlier_scores.tolist())
    for one, of_one, row in zip(found, parts, logits.softmax(2).mean(0).tolist(), strict=True):
        # Several are parts that are digits themselves, more so than the whole. Without an outlier head all scores are
        # NaN, and no comparison with one holds.
        several = of_one and max([next(scores) for _ in of_one]) < min(0, one.outlier_score)
        warning = SEVERAL if several else UNLIKE if max(one.outlier_score, one.cost) > 0 else None
        ranking = sorted(zip(classifier.class_names, row, strict=True), key=lambda item: item[1], reverse=True)
        yield Reading(one.mnist_image, dict(ranking), warning)


def _predict(inks: Sequence[np.ndarray], classifier: Classifier) -> tuple[list[np.ndarray], Predictions]:
    images = [to_mnist_style(thicken(ink)) for ink in inks]
    return images, classifier.predict(torch.from_numpy(np.array(images, np.uint8).reshape(-1, SIDE, SIDE)))
