"""From uint8 images to the network's input, and from there to logits: whole batches, on the device that holds them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

import torch
from torch import nn
from torchvision.transforms.v2 import functional as TF

from src.resnet.machine import Machine

SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))  # pixels, of an image's copies
BATCH_PIXELS = 1000 * 28 * 28  # so that memory does not grow with the image size


class InputFormat(NamedTuple):
    """What a network takes."""

    image_size: int  # S, the side of an image in pixels
    mean: float  # of the pixels of the training images scaled to [0, 1], which becomes 0
    std: float  # their standard deviation, which becomes 1

    @classmethod
    def of_model(cls, metadata: Mapping) -> Self:
        """Return what a trained model takes, by the metadata of its file."""
        return cls(metadata["image_size"], metadata["mean"], metadata["std"])

    @property
    def batch_size(self) -> int:
        """How many images go through the network together, where none of their gradients are needed."""
        return max(1, BATCH_PIXELS // self.image_size**2)


def to_input(images: torch.Tensor, form: InputFormat) -> torch.Tensor:
    """Turn images (N, H, W) or (N, 1, H, W) uint8 into the network's input (N, 1, S, S) float32."""
    return normalise_and_resize(to_unit_range(images), form)


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Scale images (N, H, W) or (N, 1, H, W) uint8 to [0, 1]: (N, 1, H, W) float32."""
    return (images if images.dim() == 4 else images.unsqueeze(1)).float().div_(255)


def normalise_and_resize(batch: torch.Tensor, form: InputFormat) -> torch.Tensor:
    """Normalise a batch in place, and resize it as the tutorial's ``Resize`` does (bilinear).

    Normalisation is the same linear map for each pixel and resizing a mean of pixels, so their order makes no
    difference. At 28 pixels the normalisation costs least.

    Args:
        batch: (N, 1, H, W) float32 in [0, 1].
        form: what the network takes.

    Returns:
        (N, 1, S, S) float32.
    """
    normalised = TF.normalize(batch, [form.mean], [form.std], inplace=True)
    return TF.resize(normalised, [form.image_size, form.image_size], antialias=True)


def predict_logits(model: nn.Module, images: torch.Tensor, form: InputFormat, machine: Machine) -> torch.Tensor:
    """Run ``model`` in evaluation mode over images (N, H, W) uint8; return logits (N, C) float32. N may be 0."""
    return run_batches(model.eval(), images, form, machine)


def predict_probabilities(
    model: nn.Module, images: torch.Tensor, form: InputFormat, machine: Machine, copies: int
) -> torch.Tensor:
    """Average the probabilities that ``model`` gives for shifted copies of images: test-time augmentation.

    Args:
        images: (N, H, W) uint8. What leaves one on a side enters it on the other, which in MNIST is as blank.
        copies: how many of `SHIFTS`.

    Returns:
        (N, C) float64, on the CPU.
    """
    shifted = (images.roll(shift, (1, 2)) for shift in SHIFTS[:copies])
    logits = [predict_logits(model, each, form, machine).cpu() for each in shifted]
    return torch.stack(logits).double().softmax(-1).mean(0)


def run_batches(
    function: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, form: InputFormat, machine: Machine
) -> torch.Tensor:
    """Apply ``function`` to the network's input of images (N, H, W) uint8, batch by batch: (N, D) float32."""
    outputs = []
    for batch in images.split(form.batch_size):
        with torch.inference_mode(), machine.autocast():
            inputs = to_input(batch.to(machine.device), form).contiguous(memory_format=torch.channels_last)
            outputs.append(function(inputs).float())
    return torch.cat(outputs)
