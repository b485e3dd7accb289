"""Telling what is no digit: a small head beside ``fc``, on the maps that the network makes of an image.

Trained with examples of what is none (outlier exposure, Hendrycks et al. 2019, https://arxiv.org/abs/1812.04606). The
probabilities alone don't tell: of a letter the network is often as sure as of a digit.
"""

import torch
import torch.nn.functional as F
from torch import nn

HIDDEN = 64
SECOND, THIRD = 4, 2  # pixels: the maps of these stages are pooled to that; at 28 pixels they are that large


class OutlierHead(nn.Module):
    """Scores features (N, D) with (N,) float32: above 0 the image is unlike any digit.

    Attributes:
        mean, std: (D,) of the features of digits.
        threshold: (), of the score.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))
        self.register_buffer("threshold", torch.zeros(()))
        self.layers = nn.Sequential(nn.Linear(num_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers((features - self.mean) / self.std).squeeze(1) - self.threshold


def logits_and_features(model: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a ResNet-18 in evaluation mode.

    Args:
        model: from `build_model`, trimmed or not.
        inputs: (N, 1, S, S) float32.

    Returns:
        The logits (N, C), and what the outlier head takes (N, D): the maps of the second stage pooled to 4 × 4, of the
        third to 2 × 2 and of the fourth to one pixel, all as square roots, and the logits.
    """
    maps = model.maxpool(model.relu(model.bn1(model.conv1(inputs))))  # pyrefly: ignore
    second = model.layer2(model.layer1(maps))  # pyrefly: ignore
    third = model.layer3(second)  # pyrefly: ignore
    fourth = model.avgpool(model.layer4(third)).flatten(1)  # pyrefly: ignore
    logits = model.fc(fourth)  # pyrefly: ignore
    parts = [_pooled(second, SECOND), _pooled(third, THIRD), fourth]
    return logits, torch.cat([*(part.sqrt() for part in parts), logits], 1)


def _pooled(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Pool maps (N, C, H, W) to ``side`` x ``side``: (N, C * side * side)."""
    there = maps.cpu() if maps.device.type == "mps" else maps  # MPS pools to a divisor of the size alone
    return F.adaptive_avg_pool2d(there, side).flatten(1).to(maps.device)
