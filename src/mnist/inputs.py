"""From uint8 images to the network's input, a whole batch at a time, on the device that holds the batch."""

import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as TF

from src.mnist.images import MEAN, STD


def to_input(images: torch.Tensor, image_size: int, theta: torch.Tensor | None = None) -> torch.Tensor:
    """Scale to [0, 1], warp where asked, normalise, and resize as the seed recipe's ``Resize`` does (bilinear).

    The warp and the normalisation come before the resizing: at 28 pixels they cost least. Normalisation is the same
    linear map for each pixel and resizing a mean of pixels, so their order makes no difference.

    Args:
        images: (N, H, W) uint8.
        image_size: S, in pixels.
        theta: (N, 2, 3) float32, as ``affine_grid`` takes it; None for no warp.

    Returns:
        (N, 1, S, S) float32.
    """
    batch = images.unsqueeze(1).float().div_(255)
    if theta is not None:
        grid = F.affine_grid(theta, list(batch.shape), align_corners=False)
        batch = F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    batch = TF.normalize(batch, [MEAN], [STD], inplace=True)
    return TF.resize(batch, [image_size, image_size], antialias=True)
