"""The model's file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from src.resnet.network import build_model

METADATA_KEY = "mnist-resnet"


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
