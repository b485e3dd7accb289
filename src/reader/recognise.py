"""Reading the digit in a picture: the guesses at its ink, and the model's word on each."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from src.mnist.dataset import SIDE
from src.pipeline.paths import OUTLIER_HEAD_FILE
from src.reader.export.onnx_classifier import OnnxClassifier
from src.reader.ink import Guess, guess_ground, guess_strokes
from src.reader.outliers.mnist_style import to_form
from src.reader.strokes import part, thicken
from src.resnet.inference import AnsweringModel, Answers, Classifier
from src.resnet.machine import Machine

EMPTY, SEVERAL, UNLIKE = "an empty picture", "more than one digit", "unlike any digit"
SURE = -8.0  # a first guess that costs no more is taken at once


class Reading(NamedTuple):
    """What was read in a picture.

    Attributes:
        form: (28, 28) uint8, what the network saw; all 0 for an empty picture.
        probabilities: (C,) float32, or None for an empty picture.
        warning: `EMPTY`, `SEVERAL`, `UNLIKE`, or None.
    """

    form: np.ndarray
    probabilities: torch.Tensor | None
    warning: str | None


def load_classifier(model_file: Path, machine: Machine) -> AnsweringModel:
    """Load either file of a trained model, by the end of its name, with the outlier head that lies beside it.

    Without a head no picture is warned of. Raises `UserError` where a file is missing, damaged, or not of this project.
    """
    if model_file.suffix == ".onnx":
        return OnnxClassifier(model_file)
    head_file = model_file.with_name(OUTLIER_HEAD_FILE.name)
    return Classifier(model_file, machine, head_file if head_file.exists() else None)


def read_digits(pictures: Sequence[np.ndarray], classifier: AnsweringModel) -> list[Reading]:
    """Read one digit in each of the ``pictures``, (H, W) float32 in [0, 255], dark on light or light on dark."""
    guesses = [[guess] if (guess := guess_ground(picture)) else [] for picture in pictures]
    best = _best(guesses, classifier)
    unsure = [number for number, one in enumerate(best) if not (one and one.cost < SURE)]
    for number in unsure:
        one = best[number]
        guesses[number] += guess_strokes(pictures[number], one.guess.dark if one else None)
    for number, one in zip(unsure, _best([guesses[number] for number in unsure], classifier), strict=True):
        best[number] = one
    several = _are_several(best, classifier)
    return [_reading(one, more) for one, more in zip(best, several, strict=True)]


class _Judged(NamedTuple):
    """A guess, its form, and the model's word on it."""

    guess: Guess
    form: np.ndarray
    logits: torch.Tensor
    score: float

    @property
    def cost(self) -> float:
        """What must be lowest: how unlike a digit it is, and how unlikely it is to be the ink at all."""
        return (0 if np.isnan(self.score) else self.score) + self.guess.handicap


def _best(guesses: Sequence[Sequence[Guess]], classifier: AnsweringModel) -> list[_Judged | None]:
    """Take the best of each picture's guesses; None where there are none."""
    forms = [[to_form(thicken(guess.ink)) for guess in of_picture] for of_picture in guesses]
    answers = _ask(classifier, [form for of_picture in forms for form in of_picture])
    judged = iter(zip(answers.logits, answers.outlier_scores.tolist(), strict=True))
    best = []
    for of_picture, its_forms in zip(guesses, forms, strict=True):
        each = [_Judged(guess, form, *next(judged)) for guess, form in zip(of_picture, its_forms, strict=True)]
        best.append(min(each, key=lambda one: one.cost, default=None))
    return best


def _are_several(best: Sequence[_Judged | None], classifier: AnsweringModel) -> list[bool]:
    """Tell of each picture whether its ink falls into parts that are digits themselves, more so than the whole."""
    parts = [part(one.guess.ink) if one else [] for one in best]
    parts = [of_one if len(of_one) > 1 else [] for of_one in parts]
    scores = iter(
        _ask(classifier, [to_form(thicken(ink)) for of_one in parts for ink in of_one]).outlier_scores.tolist()
    )
    several = []
    for one, of_one in zip(best, parts, strict=True):
        of_parts = [next(scores) for _ in of_one]
        several.append(bool(one and of_parts and max(of_parts) < min(0, one.score)))
    return several


def _ask(classifier: AnsweringModel, forms: Sequence[np.ndarray]) -> Answers:
    return classifier.answers(torch.from_numpy(np.array(forms, np.uint8).reshape(-1, SIDE, SIDE)))


def _reading(best: _Judged | None, several: bool) -> Reading:
    if best is None:
        return Reading(np.zeros((SIDE, SIDE), np.uint8), None, EMPTY)
    # Without an outlier head the score is NaN, and so is the maximum: no warning.
    warning = SEVERAL if several else UNLIKE if max(best.score, best.cost) > 0 else None
    return Reading(best.form, best.logits.softmax(0), warning)
