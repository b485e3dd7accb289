"""Is this image a digit? A small head beside ``fc``, on the maps that the network makes of an image, scores that.

It is trained with examples of what is not a digit (outlier exposure, Hendrycks et al. 2019,
https://arxiv.org/abs/1812.04606). The probabilities alone don't tell: the network is often as sure of a letter as of a
digit.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from src.pipeline.process import UserError
from src.resnet.inference import InputFormat, run_batches
from src.resnet.machine import Machine
from src.resnet.model_file import as_user_error, hash_tensors, load_model, read_tensors
from src.resnet.network import trim

HEAD_FILE = Path("models/outliers.safetensors")
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
    """Run a ResNet in evaluation mode.

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


def load_outlier_head(path: Path, model: nn.Module) -> OutlierHead:
    """Read the outlier head of a model from `load_model`, written by `encode_model` with the model's `hash_tensors`.

    Returns:
        The head in evaluation mode on the CPU.

    Raises:
        UserError: the file is missing, damaged, or belongs to another model.
    """
    with as_user_error(path, "make reader"):
        state, metadata = read_tensors(path)
        model_sha256 = metadata["model_sha256"]
        head = OutlierHead(len(state["mean"]))
        head.load_state_dict(state)
    if model_sha256 != hash_tensors(model.state_dict()):
        raise UserError(f"{path} belongs to another model; `make reader` makes it for this one")
    return head.eval()


class Predictions(NamedTuple):
    """What a model predicts for N images, on the CPU."""

    logits: torch.Tensor  # (N, C) float32
    outlier_scores: torch.Tensor  # (N,) float32, above 0 for what is unlike any digit; NaN without an outlier head


class TorchClassifier:
    """A trained model and its outlier head, on one machine.

    Attributes:
        class_names: what each column of the logits stands for.
    """

    def __init__(self, model_file: Path, machine: Machine, head_file: Path | None) -> None:
        """Load a model, and its outlier head where one is named.

        Raises `UserError` where a file is missing, damaged, or not of this project.
        """
        model, metadata = load_model(model_file)
        self.class_names: list[str] = metadata["class_names"]
        self._head = load_outlier_head(head_file, model).to(machine.device) if head_file else None
        self._form, self._machine = InputFormat.of_model(metadata), machine
        self._model = trim(model, self._form.image_size).to(machine.device).to(memory_format=torch.channels_last)

    def predict(self, images: torch.Tensor) -> Predictions:
        """Classify images (N, 28, 28) uint8."""
        columns = run_batches(self._logits_and_score, images, self._form, self._machine).cpu()
        return Predictions(columns[:, :-1], columns[:, -1])

    def _logits_and_score(self, inputs: torch.Tensor) -> torch.Tensor:
        logits, features = logits_and_features(self._model, inputs)
        scores = self._head(features) if self._head else logits.new_full((len(logits),), torch.nan)
        return torch.cat([logits, scores[:, None]], 1)


def _pooled(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Pool maps (N, C, H, W) to ``side`` × ``side``: (N, C * side * side)."""
    there = maps.cpu() if maps.device.type == "mps" else maps  # MPS pools to a divisor of the size alone
    return F.adaptive_avg_pool2d(there, side).flatten(1).to(maps.device)
