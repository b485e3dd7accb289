"""The random warps of the training images: a rotation, a shift, a scaling, and an elastic distortion."""

import math

import torch

from src.mnist.images import SIDE
from src.mnist.inputs import BUMPS, Warp
from src.pipeline.params import Params


def random_warp(count: int, params: Params, generator: torch.Generator) -> Warp:
    """Draw a warp for each of ``count`` images, on the CPU."""
    theta = random_affine(count, params, generator)
    if not params.elastic:
        return Warp(theta)
    return Warp(theta, torch.randn(count, 2, BUMPS, BUMPS, generator=generator) * params.elastic)


def random_affine(count: int, params: Params, generator: torch.Generator) -> torch.Tensor:
    """Draw a rotation, a shift and a scaling for each of ``count`` images, each uniform within its limit either way.

    Returns:
        (N, 2, 3) float32 on the CPU, as ``affine_grid`` takes it: from output to input coordinates in [-1, 1].
    """
    angle, shift_x, shift_y, scaling = (torch.rand(4, count, generator=generator) * 2 - 1).unbind()
    angle = angle * math.radians(params.max_rotation)
    scale = 1 / (1 + scaling * params.max_scaling)
    to_unit = 2 * params.max_shift / SIDE
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, -sin, shift_x * to_unit], 1), torch.stack([sin, cos, shift_y * to_unit], 1)]
    return torch.stack(rows, 1)
