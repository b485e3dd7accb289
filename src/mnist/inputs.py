"""From uint8 images to the network's input, a whole batch at a time, on the device that holds the batch."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as TF

from src.mnist.images import MEAN, SIDE, STD

SIGMA = 4.0  # pixels: how smooth an elastic distortion is, the value of Simard et al. 2003
BUMPS = 12  # along each side of an image, SIGMA apart, from two beyond its first pixel to two beyond its last


class Warp(NamedTuple):
    """How each image of a batch is warped."""

    theta: torch.Tensor  # (N, 2, 3) float32, as `affine_grid` takes it
    bumps: torch.Tensor | None = None  # (N, 2, BUMPS, BUMPS) float32, as `displacement` takes them; None for none

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Warp":
        """Apply ``function`` to each tensor."""
        return Warp(function(self.theta), None if self.bumps is None else function(self.bumps))


def to_input(images: torch.Tensor, image_size: int, warp: Warp | None = None) -> torch.Tensor:
    """Scale to [0, 1], warp where asked, normalise, and resize as the seed recipe's ``Resize`` does (bilinear).

    The warp and the normalisation come before the resizing: at 28 pixels they cost least. Normalisation is the same
    linear map for each pixel and resizing a mean of pixels, so their order makes no difference.

    Args:
        images: (N, H, W) or (N, 1, H, W) uint8.
        image_size: S, in pixels.
        warp: None for none.

    Returns:
        (N, 1, S, S) float32.
    """
    batch = (images if images.dim() == 4 else images.unsqueeze(1)).float().div_(255)
    if warp is not None:
        grid = F.affine_grid(warp.theta, list(batch.shape), align_corners=False)
        if warp.bumps is not None:
            grid = grid + displacement(warp.bumps) * (2 / SIDE)
        batch = F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    batch = TF.normalize(batch, [MEAN], [STD], inplace=True)
    return TF.resize(batch, [image_size, image_size], antialias=True)


def displacement(bumps: torch.Tensor) -> torch.Tensor:
    """Add up Gaussian bumps to the smooth displacement of each pixel of an image: an elastic distortion.

    Simard et al. 2003 (Best practices for convolutional neural networks applied to visual document analysis) smooth
    white noise with a Gaussian. With heights that are white noise, a grid of bumps as far apart as they are wide gives
    a field of the same law, to a thousandth, from a fifth of the random numbers and two small matrix products.

    Args:
        bumps: (N, 2, BUMPS, BUMPS) their heights, in x and in y. Where these are independent with a standard deviation
            of d, so is the displacement of each pixel.

    Returns:
        (N, SIDE, SIDE, 2), x before y as `grid_sample` takes it.
    """
    pixels = torch.arange(SIDE, device=bumps.device, dtype=bumps.dtype)
    centres = (torch.arange(BUMPS, device=bumps.device, dtype=bumps.dtype) - 2) * SIGMA
    basis = torch.exp(-((pixels[:, None] - centres) ** 2) / (2 * SIGMA**2)) / math.pi**0.25  # whose squares add up to 1
    return (basis @ bumps @ basis.T).permute(0, 2, 3, 1)
