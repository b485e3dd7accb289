"""From uint8 images to the network's input, and from there to logits: whole batches, on the device that holds them."""

from collections.abc import Callable

import torch
from torch import nn
from torchvision.transforms.v2 import functional as TF

from src.mnist.dataset import MEAN, STD
from src.resnet.machine import Machine

SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))  # pixels, of an image's copies
BATCH_PIXELS = 1000 * 28 * 28  # so that memory does not grow with the image size


def to_input(images: torch.Tensor, image_size: int) -> torch.Tensor:
    """Turn images (N, H, W) or (N, 1, H, W) uint8 into the network's input (N, 1, S, S) float32."""
    return normalise_and_resize(to_unit_range(images), image_size)


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Scale images (N, H, W) or (N, 1, H, W) uint8 to [0, 1]: (N, 1, H, W) float32."""
    return (images if images.dim() == 4 else images.unsqueeze(1)).float().div_(255)


def normalise_and_resize(batch: torch.Tensor, image_size: int) -> torch.Tensor:
    """Normalise a batch in place, and resize it as the tutorial's ``Resize`` does (bilinear).

    Normalisation is the same linear map for each pixel and resizing a mean of pixels, so their order makes no
    difference. At 28 pixels the normalisation costs least.

    Args:
        batch: (N, 1, H, W) float32 in [0, 1].
        image_size: S, in pixels.

    Returns:
        (N, 1, S, S) float32.
    """
    return TF.resize(TF.normalize(batch, [MEAN], [STD], inplace=True), [image_size, image_size], antialias=True)


def predict_logits(model: nn.Module, images: torch.Tensor, image_size: int, machine: Machine) -> torch.Tensor:
    """Run ``model`` in evaluation mode over images (N, H, W) uint8; return logits (N, C) float32. N may be 0."""
    return run_batches(model.eval(), images, image_size, machine)


def predict_probabilities(
    model: nn.Module, images: torch.Tensor, image_size: int, machine: Machine, copies: int
) -> torch.Tensor:
    """Average the probabilities that ``model`` gives for shifted copies of images: test-time augmentation.

    Args:
        images: (N, H, W) uint8. What leaves one on a side enters it on the other, which in MNIST is as blank.
        copies: how many of `SHIFTS`.

    Returns:
        (N, C) float64, on the CPU.
    """
    shifted = (images.roll(shift, (1, 2)) for shift in SHIFTS[:copies])
    logits = [predict_logits(model, each, image_size, machine).cpu() for each in shifted]
    return torch.stack(logits).double().softmax(-1).mean(0)


def run_batches(
    function: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, image_size: int, machine: Machine
) -> torch.Tensor:
    """Apply ``function`` to the network's input of images (N, H, W) uint8, batch by batch: (N, D) float32."""
    outputs = []
    for batch in images.to(machine.device).split(inference_batch_size(image_size)):
        with torch.inference_mode(), machine.autocast():
            inputs = to_input(batch, image_size).contiguous(memory_format=torch.channels_last)
            outputs.append(function(inputs).float())
    return torch.cat(outputs)


def inference_batch_size(image_size: int) -> int:
    """Choose how many images of ``image_size`` pixels go through the network together."""
    return max(1, BATCH_PIXELS // image_size**2)
