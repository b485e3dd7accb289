"""ResNet-18 (He et al. 2015, https://arxiv.org/abs/1512.03385) for one channel and ten classes, and its file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torchvision.models import resnet18

METADATA_KEY = "mnist-resnet"


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


def encode_model(model: nn.Module, metadata: Mapping[str, object]) -> bytes:
    """The safetensors file of ``model``: the same bytes for the same weights and metadata.

    ``metadata`` goes in as JSON under one key, because safetensors keeps its keys in no fixed order, and with it a
    hash of the weights, because safetensors has none.
    """
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    return save(state, {METADATA_KEY: json.dumps({**metadata, "sha256": _hash(state)}, sort_keys=True)})


def load_model(path: Path) -> tuple[nn.Module, dict]:
    """Read what `encode_model` wrote.

    Returns:
        The model in evaluation mode on the CPU, and the metadata.

    Raises:
        ValueError: the file is missing, damaged, or not of this project.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if _hash(state) != metadata.pop("sha256"):
            raise ValueError("the hash of its weights is wrong")
        model = build_model(len(metadata["class_names"]))
        model.load_state_dict(state)
    except (OSError, SafetensorError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is missing or damaged: {str(error).splitlines()[0]}") from error
    return model.eval(), metadata


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of all tensors' names, shapes and values, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
