"""The weights that training starts from: a file with the weights of a ResNet, read and checked, then loaded."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torchvision.models import get_model

from src.pipeline.process import UserError, first_line

CONV1 = "conv1.weight"
FC = {"fc.weight", "fc.bias"}
CHANNELS = (1, 3)  # that conv1 may have: grey or RGB


def read_weights(path: Path, network: str) -> dict[str, torch.Tensor]:
    """Read a state dict of a ResNet with torchvision's names, as torchvision and timm publish them.

    It may lack ``fc``, have another number of classes there, lack ``num_batches_tracked``, and have one channel or
    three at ``conv1``. It may lie inside a checkpoint, and its names may have a prefix in common, such as ``module.``.

    Args:
        path: a ``.safetensors`` file, or a ``.pth`` file. Only tensors are unpickled, so nothing in it is executed.
        network: torchvision's name of it.

    Returns:
        The tensors by their names, without ``num_batches_tracked``.

    Raises:
        UserError: the file holds no such state dict, or numbers that are not finite.
    """
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        state = _find(content)
        _check(state, network)
    except Exception as error:  # torch.load and safetensors raise many kinds for a wrong file
        raise UserError(f"{path} can't be read as weights of a {network}: {first_line(error)}") from error
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
    kernels = loaded.pop(CONV1)  # (64, 1 or 3, 7, 7)
    if conv1_init != "new":
        reduce = torch.sum if conv1_init == "sum" else torch.mean
        loaded[CONV1] = reduce(kernels, 1, keepdim=True, dtype=torch.float32)
    if "fc.weight" in loaded and loaded["fc.weight"].shape != model.get_parameter("fc.weight").shape:
        del loaded["fc.weight"], loaded["fc.bias"]
    model.load_state_dict(loaded, strict=False)


def _find(content: object) -> dict[str, torch.Tensor]:
    """Find the first mapping, however deep, with a ``conv1.weight``, and take off what stands before its names."""
    waiting = [content]
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, Mapping):
            continue
        if names := [name for name in map(str, found) if name.endswith(CONV1)]:
            prefix = min(names, key=len).removesuffix(CONV1)  # the later layers' blocks have a conv1 too
            return {name.removeprefix(prefix): found[name] for name in found if _is_weight(name, prefix)}
        waiting += found.values()
    raise ValueError(f"no state dict with a {CONV1}")


def _is_weight(name: str, prefix: str = "") -> bool:
    return name.startswith(prefix) and not name.endswith("num_batches_tracked")


def _check(state: Mapping[str, torch.Tensor], network: str) -> None:
    with torch.device("meta"):
        model = get_model(network, num_classes=len(state["fc.weight"]) if "fc.weight" in state else 1000)
    expected = {name: {tuple(tensor.shape)} for name, tensor in model.state_dict().items() if _is_weight(name)}
    expected[CONV1] = {(64, channels, 7, 7) for channels in CHANNELS}
    required = expected.keys() - (FC if not FC & state.keys() else set())
    if missing := sorted(required - state.keys()):
        raise ValueError(f"{missing[0]} is missing")
    if unexpected := sorted(state.keys() - expected.keys()):
        raise ValueError(f"it has the tensor {unexpected[0]}, which {network} lacks: another architecture?")
    for name, tensor in state.items():
        if tuple(tensor.shape) not in expected[name]:
            shapes = " or ".join(map(str, sorted(expected[name])))
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {shapes}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"{name} contains NaN, infinity or integers")
