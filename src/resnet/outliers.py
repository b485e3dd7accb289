"""Telling what is no digit: a small head beside ``fc``, on the maps that the network makes of an image.

Trained with examples of what is none (outlier exposure, Hendrycks et al. 2019, https://arxiv.org/abs/1812.04606). The
probabilities alone don't tell: of a letter the network is often as sure as of a digit.
"""

import torch
import torch.nn.functional as F
from torch import nn

HIDDEN = 128
MAP = 2  # pixels: the third stage's maps are pooled to that; at 28 pixels they are that large


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
        The logits (N, C), and what the outlier head takes (N, D): the maps of the third stage pooled to 2 × 2, those
        of the fourth pooled to one pixel, both as square roots, and the logits.
    """
    maps = model.maxpool(model.relu(model.bn1(model.conv1(inputs))))  # pyrefly: ignore
    third = model.layer3(model.layer2(model.layer1(maps)))  # pyrefly: ignore
    pooled = model.avgpool(model.layer4(third)).flatten(1)  # pyrefly: ignore
    logits = model.fc(pooled)  # pyrefly: ignore
    third = F.adaptive_avg_pool2d(third, MAP).flatten(1)
    return logits, torch.cat([third.sqrt(), pooled.sqrt(), logits], 1)
