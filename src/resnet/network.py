"""ResNet-18 (He et al. 2015, https://arxiv.org/abs/1512.03385) for one channel and ten classes."""

from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

from src.pipeline.errors import UserError


def build_model(num_classes: int) -> nn.Module:
    """Build torchvision's ``resnet18`` with ``conv1`` for one channel and ``fc`` for ``num_classes``, weights random.

    Input (N, 1, H, W) float32, output logits (N, num_classes).
    """
    model = resnet18()
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return model


def load_imagenet_weights(model: nn.Module, path: Path, conv1_init: str) -> None:
    """Load torchvision's ImageNet weights into ``model``; ``fc`` keeps its random ones.

    Args:
        model: from `build_model`.
        path: the ``.pth`` file of ``ResNet18_Weights.IMAGENET1K_V1``. Only tensors are unpickled, so nothing in it is
            executed.
        conv1_init: ``new`` keeps ``conv1`` random, as the seed recipe does; ``summed`` sums the kernels of red, green
            and blue, so that a grey image gives the response that the ImageNet network has to it.

    Raises:
        UserError: the file holds no such state dict.
    """
    try:
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
        rgb = state.pop("conv1.weight")  # (64, 3, 7, 7)
        if conv1_init == "summed":
            state["conv1.weight"] = rgb.sum(1, keepdim=True)
        del state["fc.weight"], state["fc.bias"]
        missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:  # torch.load and load_state_dict raise many kinds for a wrong file
        raise UserError(f"{path} holds no ResNet-18 weights: {str(error).splitlines()[0]}") from error
    left_random = {"fc.weight", "fc.bias"} | ({"conv1.weight"} if conv1_init == "new" else set())
    if unexpected or {name for name in missing if not name.endswith("num_batches_tracked")} != left_random:
        raise UserError(f"{path} holds no ResNet-18 weights: missing {missing}, unexpected {unexpected}")
