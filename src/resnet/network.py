"""ResNet-18 (He et al. 2015, https://arxiv.org/abs/1512.03385) for one channel and ten classes."""

from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18


def build_model(num_classes: int) -> nn.Module:
    """torchvision's ``resnet18`` with ``conv1`` for one channel and ``fc`` for ``num_classes``, weights random.

    Input (N, 1, H, W) float32, output logits (N, num_classes).
    """
    model = resnet18()
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return model


def load_imagenet_weights(model: nn.Module, path: Path, conv1_init: str) -> None:
    """Start ``model`` from torchvision's ImageNet weights; ``fc`` keeps its random ones.

    Args:
        model: from `build_model`.
        path: the ``.pth`` file of ``ResNet18_Weights.IMAGENET1K_V1``.
        conv1_init: ``new`` keeps ``conv1`` random, as the seed recipe does; ``summed`` sums the RGB kernels, which
            gives a grey image the response that the ImageNet model has to it.

    Raises:
        ValueError: the file is not such a state dict. Only tensors are unpickled, so nothing in it is executed.
    """
    try:
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
        rgb = state.pop("conv1.weight")
        if conv1_init == "summed":
            state["conv1.weight"] = rgb.sum(1, keepdim=True)
        del state["fc.weight"], state["fc.bias"]
        missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:  # torch.load and load_state_dict raise many kinds for a wrong file
        raise ValueError(f"{path} holds no ResNet-18 weights: {str(error).splitlines()[0]}") from error
    kept = {"fc.weight", "fc.bias"} | ({"conv1.weight"} if conv1_init == "new" else set())
    if unexpected or {name for name in missing if not name.endswith("num_batches_tracked")} != kept:
        raise ValueError(f"{path} holds no ResNet-18 weights: missing {missing}, unexpected {unexpected}")
