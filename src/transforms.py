"""From uint8 images to the model's input, a whole batch at a time, on the device that holds the batch."""

import math

import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as TF

from src.dataset import MEAN, STD


def to_input(images: torch.Tensor, image_size: int, theta: torch.Tensor | None = None) -> torch.Tensor:
    """Scale to [0, 1], warp where asked, normalise, resize as the seed recipe's ``Resize`` does (bilinear).

    All but the resizing is done at the images' own size, where it costs least: what is linear may change places.

    Args:
        images: (N, H, W) uint8.
        image_size: S, in pixels.
        theta: (N, 2, 3) float32, from `random_affine`; None for no warp.

    Returns:
        (N, 1, S, S) float32.
    """
    batch = images.unsqueeze(1).float().div_(255)
    if theta is not None:
        grid = F.affine_grid(theta, list(batch.shape), align_corners=False)
        batch = F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    batch = TF.normalize(batch, [MEAN], [STD], inplace=True)
    return TF.resize(batch, [image_size, image_size], antialias=True)


def random_affine(
    count: int, *, side: int, max_rotation: float, max_shift: float, max_scaling: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw a rotation, a shift and a scaling for each image, each uniform within its limit either way.

    Args:
        count: N.
        side: of the images, in pixels.
        max_rotation: degrees.
        max_shift: pixels.
        max_scaling: share; 0.1 gives factors from 0.9 to 1.1.
        generator: of the CPU.

    Returns:
        (N, 2, 3) float32 on the CPU, as ``affine_grid`` takes it: from output to input coordinates in [-1, 1].
    """
    angle, shift_x, shift_y, scaling = (torch.rand(4, count, generator=generator) * 2 - 1).unbind()
    angle = angle * math.radians(max_rotation)
    scale = 1 / (1 + scaling * max_scaling)
    to_unit = 2 * max_shift / side
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, -sin, shift_x * to_unit], 1), torch.stack([sin, cos, shift_y * to_unit], 1)]
    return torch.stack(rows, 1)
