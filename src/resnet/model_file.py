"""The files of a trained model and of its outlier head: weights, and what somebody needs who has nothing else."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from src.mnist.images import CLASS_NAMES, MEAN, STD
from src.pipeline.errors import UserError, first_line
from src.resnet.network import build_model
from src.resnet.outliers import OutlierHead

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
    with _named(path, "train"):
        state, metadata = _read(path)
        model = build_model(len(metadata["class_names"]))
        model.load_state_dict(state)
    return model.eval(), metadata


def load_outlier_head(path: Path, model: nn.Module) -> OutlierHead:
    """Read the outlier head of a model from `load_model`, written by `encode_model` with the model's `weights_hash`.

    Returns:
        The head in evaluation mode on the CPU.

    Raises:
        UserError: the file is missing, damaged, or of another model.
    """
    with _named(path, "outliers"):
        state, metadata = _read(path)
        if metadata["model_sha256"] != weights_hash(model):
            raise ValueError("it was fitted to another model")
        head = OutlierHead(len(state["mean"]))
        head.load_state_dict(state)
    return head.eval()


def weights_hash(module: nn.Module) -> str:
    """Hash the weights of a module on the CPU: the SHA-256 in hex."""
    return _hash(module.state_dict())


@contextmanager
def _named(path: Path, stage: str) -> Iterator[None]:
    """Turn what goes wrong with a model's file into a `UserError` that names it, and the stage that writes it."""
    try:
        yield
    except (OSError, SafetensorError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is missing or damaged: {first_line(error)}; run `dvc repro {stage}`") from error


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read the tensors and the metadata of a file, and compare its hash."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {})[METADATA_KEY])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if _hash(state) != metadata.pop("sha256"):
        raise ValueError("the hash of its weights is wrong")
    return state, metadata


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    """Hash all tensors' names, shapes and values: the SHA-256 in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
