"""A network's answers to many images, in batches."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn

from src.mnist.inputs import to_input
from src.pipeline.machine import Machine
from src.resnet.model_file import load_model, load_outlier_head
from src.resnet.outliers import logits_and_features
from src.resnet.trim import trim

BATCH_PIXELS = 1000 * 28 * 28  # so that memory does not grow with the image size


class Answers(NamedTuple):
    """What a model says of N images, on the CPU.

    Attributes:
        logits: (N, C) float32.
        outlier_scores: (N,) float32, above 0 for what is unlike any digit; NaN where the model has no outlier head.
    """

    logits: torch.Tensor
    outlier_scores: torch.Tensor


class AnsweringModel(Protocol):
    """A trained model, whatever runs it."""

    class_names: list[str]  # what each column of the logits stands for

    def answers(self, images: torch.Tensor) -> Answers:
        """Answer images (N, 28, 28) uint8."""
        ...


class Classifier:
    """A trained model, ready for images on one machine.

    Attributes:
        class_names: what each column of the logits stands for.
    """

    def __init__(self, model_file: Path, machine: Machine, head_file: Path | None = None) -> None:
        """Load a model, and its outlier head where one is named.

        Raises `UserError` where a file is missing, damaged, or not of this project.
        """
        model, metadata = load_model(model_file)
        self.class_names: list[str] = metadata["class_names"]
        self._head = load_outlier_head(head_file, model).to(machine.device) if head_file else None
        self._image_size: int = metadata["image_size"]
        self._machine = machine
        self._model = trim(model, self._image_size).to(machine.device).to(memory_format=torch.channels_last)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Answer images (N, 28, 28) uint8 with logits (N, C) float32 on the CPU."""
        return predict_logits(self._model, images.to(self._machine.device), self._image_size, self._machine).cpu()

    def answers(self, images: torch.Tensor) -> Answers:
        """Answer images (N, 28, 28) uint8."""
        columns = run_batches(self._columns, images.to(self._machine.device), self._image_size, self._machine).cpu()
        return Answers(columns[:, :-1], columns[:, -1])

    def _columns(self, inputs: torch.Tensor) -> torch.Tensor:
        logits, features = logits_and_features(self._model, inputs)
        scores = self._head(features) if self._head else logits.new_full((len(logits),), torch.nan)
        return torch.cat([logits, scores[:, None]], 1)


def predict_logits(model: nn.Module, images: torch.Tensor, image_size: int, machine: Machine) -> torch.Tensor:
    """Run ``model`` in evaluation mode over images (N, H, W) uint8; return logits (N, C) float32. N may be 0."""
    return run_batches(model.eval(), images, image_size, machine)


def run_batches(
    function: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, image_size: int, machine: Machine
) -> torch.Tensor:
    """Apply ``function`` to the network's input of images (N, H, W) uint8, batch by batch: (N, D) float32."""
    outputs = []
    for batch in images.split(inference_batch_size(image_size)):
        with torch.inference_mode(), machine.autocast():
            inputs = to_input(batch, image_size).contiguous(memory_format=torch.channels_last)
            outputs.append(function(inputs).float())
    return torch.cat(outputs)


def inference_batch_size(image_size: int) -> int:
    """Choose how many images of ``image_size`` pixels go through the network together."""
    return max(1, BATCH_PIXELS // image_size**2)
