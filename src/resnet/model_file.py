"""The file of a trained model: its weights, and what somebody needs who has nothing else."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from src.pipeline.process import UserError, first_line
from src.resnet.inference import InputFormat
from src.resnet.network import build_model

METADATA_KEY = "mnist-resnet"


def model_metadata(network: str, class_names: Sequence[str], form: InputFormat) -> dict[str, object]:
    """Say what the model is, how to feed it and how to read its answers."""
    return {"architecture": network, "class_names": class_names, **form._asdict()}


def encode_model(model: nn.Module, metadata: Mapping[str, object]) -> bytes:
    """Encode ``model`` as safetensors: the same bytes for the same weights and metadata.

    ``metadata`` goes in as JSON under one key, because safetensors keeps its keys in no fixed order. A hash of the
    weights goes in with it, because safetensors has none.
    """
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    return save(state, {METADATA_KEY: json.dumps({**metadata, "sha256": hash_tensors(state)}, sort_keys=True)})


def load_model(path: Path) -> tuple[nn.Module, dict]:
    """Read what `encode_model` wrote.

    Returns:
        The model in evaluation mode on the CPU, and the metadata.

    Raises:
        UserError: the file is missing, damaged, or not of this project.
    """
    with as_user_error(path, "dvc repro train"):
        state, metadata = read_tensors(path)
        model = build_model(metadata["architecture"], len(metadata["class_names"]))
        model.load_state_dict(state)
    return model.eval(), metadata


@contextmanager
def as_user_error(path: Path, command: str) -> Iterator[None]:
    """Turn what goes wrong with a model's file into a `UserError` that names it, and the command that makes one."""
    try:
        yield
    except (OSError, SafetensorError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        missing = isinstance(error, FileNotFoundError)
        problem = "there is no such file" if missing else f"not a file of this project ({first_line(error)})"
        raise UserError(f"{path}: {problem}; `{command}` makes one") from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read the tensors and the metadata of what `encode_model` wrote, and compare its hash."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {})[METADATA_KEY])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if hash_tensors(state) != metadata.pop("sha256"):
        raise ValueError("the hash of its weights is wrong")
    return state, metadata


def hash_tensors(state: Mapping[str, torch.Tensor]) -> str:
    """Hash all tensors' names, shapes and values, on the CPU: the SHA-256 in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
