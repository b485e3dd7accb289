"""The weights that training starts from: a file with the weights of a ResNet-18, read and checked, then loaded."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torchvision.models import resnet18

from src.pipeline.process import UserError, first_line

FC = {"fc.weight", "fc.bias"}
CHANNELS = (1, 3)  # that conv1 may have: grey or RGB


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict of a ResNet-18 with torchvision's names, as torchvision and timm publish them.

    It may lack ``fc``, have another number of classes there, lack ``num_batches_tracked``, and have one channel or
    three at ``conv1``.

    Args:
        path: a ``.safetensors`` file, or a ``.pth`` file. Only tensors are unpickled, so nothing in it is executed.

    Returns:
        The tensors by their names, without ``num_batches_tracked``.

    Raises:
        UserError: the file holds no such state dict, or numbers that are not finite.
    """
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            raise ValueError("not a state dict")
        state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
        _check(state)
    except Exception as error:  # torch.load and safetensors raise many kinds for a wrong file
        raise UserError(f"{path} can't be read as ResNet-18 weights: {first_line(error)}") from error
    return state


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], conv1_init: str) -> None:
    """Load what `read_weights` returned into a `build_model`. What the file does not give keeps its random values.

    ``fc`` is taken where it has as many classes as the model.

    Args:
        model: from `build_model`.
        state: the tensors by their names.
        conv1_init: how three channels become one. ``sum`` adds up the kernels of red, green and blue, so that a grey
            image gives the response that the RGB network has to it; ``mean`` gives a third of that; ``new`` keeps
            ``conv1`` random, as the tutorial does. With the first two, a single channel is taken as it is.
    """
    loaded = dict(state)
    kernels = loaded.pop("conv1.weight")  # (64, 1 or 3, 7, 7)
    if conv1_init != "new":
        reduce = torch.sum if conv1_init == "sum" else torch.mean
        loaded["conv1.weight"] = reduce(kernels, 1, keepdim=True)
    if "fc.weight" in loaded and loaded["fc.weight"].shape != model.get_parameter("fc.weight").shape:
        del loaded["fc.weight"], loaded["fc.bias"]
    model.load_state_dict(loaded, strict=False)


def _check(state: Mapping[str, torch.Tensor]) -> None:
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in resnet18().state_dict().items()}
    expected = {name: shape for name, shape in expected.items() if not name.endswith("num_batches_tracked")}
    if "fc.weight" in state and state["fc.weight"].dim() == 2:
        classes = len(state["fc.weight"])
        expected |= {"fc.weight": (classes, expected["fc.weight"][1]), "fc.bias": (classes,)}
    required = expected.keys() - (FC if not FC & state.keys() else set())
    if missing := sorted(required - state.keys()):
        raise ValueError(f"{missing[0]} is missing")
    if unexpected := sorted(state.keys() - expected.keys()):
        raise ValueError(f"it has the tensor {unexpected[0]}, which ResNet-18 lacks: another architecture?")
    for name, tensor in state.items():
        shapes = {expected[name]}
        if name == "conv1.weight":
            shapes = {(64, channels, 7, 7) for channels in CHANNELS}
        if tuple(tensor.shape) not in shapes:
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {' or '.join(map(str, sorted(shapes)))}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"{name} contains NaN, infinity or integers")
