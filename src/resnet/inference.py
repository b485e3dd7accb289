"""The network's answers, a batch at a time."""

from collections.abc import Iterator

import torch
from torch import nn

from src.mnist.images import Images
from src.mnist.inputs import to_input
from src.pipeline.machine import Machine

EVALUATION_PIXELS = 1000 * 28 * 28  # per batch, so that memory does not grow with the image size


def batch_predictions(
    model: nn.Module, data: Images, image_size: int, machine: Machine
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (logits (N, C) float32, labels (N,) int64) for each batch of ``data``, in its order."""
    batch_size = max(1, EVALUATION_PIXELS // image_size**2)
    model.eval()
    for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True):
        if not len(labels):  # more processes than images
            continue
        with torch.inference_mode(), machine.autocast():
            inputs = to_input(images, image_size).contiguous(memory_format=torch.channels_last)
            logits = model(inputs).float()
        yield logits, labels.long()
