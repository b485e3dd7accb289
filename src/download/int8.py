"""ImageNet weights in a quarter of their bytes: how ``data/imagenet/resnet18.safetensors`` was made and is read.

``python -m src.download.int8 FILE`` makes it of a ResNet-18's state dict in single precision.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from src.pipeline.files import write_file
from src.pipeline.paths import IMAGENET_FILE
from src.weights.state_dict import read_weights

SCALE = ".scale"  # the suffix of the name of a tensor's scales
LARGEST = 127


def quantise(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round each kernel to int8, with a scale of its own for each output channel. What has one dimension stays.

    Args:
        state: float32 tensors by their names.

    Returns:
        For each kernel (C_out, ...) an int8 tensor of its name and shape, and its scales (C_out, 1, ...) float32.
    """
    quantised = dict(state)
    for name, tensor in state.items():
        if tensor.dim() > 1:
            scale = tensor.abs().amax(tuple(range(1, tensor.dim())), keepdim=True) / LARGEST
            quantised |= {name: (tensor / scale).round().to(torch.int8), name + SCALE: scale}
    return quantised


def dequantise(quantised: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undo `quantise`, but for the rounding: the same float32 bits on any machine."""
    return {
        name: tensor * quantised[name + SCALE] if name + SCALE in quantised else tensor
        for name, tensor in quantised.items()
        if not name.endswith(SCALE)
    }


if __name__ == "__main__":
    write_file(IMAGENET_FILE, safetensors.torch.save(quantise(read_weights(Path(sys.argv[1]), "resnet18"))))
