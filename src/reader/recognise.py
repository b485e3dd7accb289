"""Recognising the digit in a picture: the guesses at its ink, and what the model predicts for each."""

from collections.abc import Sequence
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
    probabilities: torch.Tensor | None  # (C,) float32, or None for an empty picture
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
    guesses = [[guess] if (guess := ink_from_border(picture)) else [] for picture in pictures]
    best = _best(guesses, classifier)
    unsure = [number for number, one in enumerate(best) if not (one and one.cost < SURE)]
    for number in unsure:
        one = best[number]
        guesses[number] += ink_from_strokes(pictures[number], one.guess.dark if one else None)
    for number, one in zip(unsure, _best([guesses[number] for number in unsure], classifier), strict=True):
        best[number] = one
    several = _are_several(best, classifier)
    found = [one for one in best if one]
    seen = torch.from_numpy(np.array([one.mnist_image for one in found]).reshape(-1, SIDE, SIDE))
    shifted = [classifier.predict(seen.roll(shift, (1, 2))).logits.softmax(1) for shift in SHIFTS[1:copies]]
    plain = torch.stack([one.logits for one in found]).softmax(1) if found else torch.empty(0)
    probabilities = iter(torch.stack([plain, *shifted]).mean(0))
    return [_reading(one, next(probabilities) if one else None, more) for one, more in zip(best, several, strict=True)]


def _best(guesses: Sequence[Sequence[Guess]], classifier: Classifier) -> list[Candidate | None]:
    """Take the best of each picture's guesses; None where there are none."""
    images, predictions = _predict([guess.ink for of_picture in guesses for guess in of_picture], classifier)
    each = zip(images, predictions.logits, predictions.outlier_scores.tolist(), strict=True)
    candidates = [[Candidate(guess, *next(each)) for guess in of_picture] for of_picture in guesses]
    return [min(of_picture, key=lambda one: one.cost, default=None) for of_picture in candidates]


def _are_several(best: Sequence[Candidate | None], classifier: Classifier) -> list[bool]:
    """Tell of each picture whether its ink falls into parts that are digits themselves, more so than the whole."""
    parts = [split(one.guess.ink) if one else [] for one in best]
    _, predictions = _predict([ink for of_one in parts for ink in of_one], classifier)
    scores = iter(predictions.outlier_scores.tolist())
    of_parts = [[next(scores) for _ in of_one] for of_one in parts]
    return [
        bool(one and of_one and max(of_one) < min(0, one.outlier_score))
        for one, of_one in zip(best, of_parts, strict=True)
    ]


def _predict(inks: Sequence[np.ndarray], classifier: Classifier) -> tuple[list[np.ndarray], Predictions]:
    images = [to_mnist_style(thicken(ink)) for ink in inks]
    return images, classifier.predict(torch.from_numpy(np.array(images, np.uint8).reshape(-1, SIDE, SIDE)))


def _reading(best: Candidate | None, probabilities: torch.Tensor | None, several: bool) -> Reading:
    if best is None:
        return Reading(np.zeros((SIDE, SIDE), np.uint8), None, EMPTY)
    # Without an outlier head the score is NaN, and so is the maximum: no warning.
    warning = SEVERAL if several else UNLIKE if max(best.outlier_score, best.cost) > 0 else None
    return Reading(best.mnist_image, probabilities, warning)
