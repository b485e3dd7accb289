"""The file of a trained model: its weights, and what somebody needs to know who has nothing else."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from src.mnist.images import CLASS_NAMES, MEAN, STD
from src.pipeline.errors import UserError
from src.resnet.network import build_model

METADATA_KEY = "mnist-resnet"  # in the files of both formats, safetensors and ONNX


def model_metadata(image_size: int) -> dict[str, object]:
    """Say how to feed the model and how to read its answers."""
    return {
        "architecture": "resnet18",
        "class_names": CLASS_NAMES,
        "image_size": image_size,  # pixels
        "mean": MEAN,
        "std": STD,
    }


def encode_model(model: nn.Module, metadata: Mapping[str, object]) -> bytes:
    """Encode ``model`` as safetensors: the same bytes for the same weights and metadata.

    ``metadata`` goes in as JSON under one key, because safetensors keeps its keys in no fixed order. A hash of the
    weights goes in with it, because safetensors has none.
    """
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    return save(state, {METADATA_KEY: json.dumps({**metadata, "sha256": _hash(state)}, sort_keys=True)})


def load_model(path: Path) -> tuple[nn.Module, dict]:
    """Read what `encode_model` wrote.

    Returns:
        The model in evaluation mode on the CPU, and the metadata.

    Raises:
        UserError: the file is missing, damaged, or not of this project.
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
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is missing or damaged: {reason}; run `dvc repro train`") from error
    return model.eval(), metadata


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    """Hash all tensors' names, shapes and values: the SHA-256 in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
