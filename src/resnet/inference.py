"""A network's answers to many images, in batches."""

from pathlib import Path

import torch
from torch import nn

from src.mnist.inputs import to_input
from src.pipeline.machine import Machine
from src.resnet.model_file import load_model
from src.resnet.trim import trim

BATCH_PIXELS = 1000 * 28 * 28  # so that memory does not grow with the image size


class Classifier:
    """A trained model, ready for images on one machine.

    Attributes:
        class_names: what each column of the logits stands for.
    """

    def __init__(self, model_file: Path, machine: Machine) -> None:
        """Load a model. Raises `UserError` where its file is missing, damaged, or not of this project."""
        model, metadata = load_model(model_file)
        self.class_names: list[str] = metadata["class_names"]
        self._image_size: int = metadata["image_size"]
        self._machine = machine
        self._model = trim(model, self._image_size).to(machine.device).to(memory_format=torch.channels_last)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Answer images (N, 28, 28) uint8 with logits (N, C) float32 on the CPU."""
        return predict_logits(self._model, images.to(self._machine.device), self._image_size, self._machine).cpu()


def predict_logits(model: nn.Module, images: torch.Tensor, image_size: int, machine: Machine) -> torch.Tensor:
    """Run ``model`` in evaluation mode over images (N, H, W) uint8; return logits (N, C) float32. N may be 0."""
    model.eval()
    logits = []
    for batch in images.split(batch_size(image_size)):
        with torch.inference_mode(), machine.autocast():
            inputs = to_input(batch, image_size).contiguous(memory_format=torch.channels_last)
            logits.append(model(inputs).float())
    return torch.cat(logits)


def batch_size(image_size: int) -> int:
    """Choose how many images of ``image_size`` pixels go through the network together."""
    return max(1, BATCH_PIXELS // image_size**2)
