"""Stand-ins for what others publish: made here, and taken by the download stage for the real files."""

import gzip
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from src.download import initial_weights
from src.download import stage as download
from src.download.sample import encode_idx


def stand_in_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Publish a few images as MNIST's four packed files in ``folder``; return what they hold, by their names."""
    images = np.arange(10 * 28 * 28, dtype=np.uint8).reshape(10, 28, 28)
    labels = np.arange(10, dtype=np.uint8)
    unpacked = {
        "train-images-idx3-ubyte": encode_idx(images),
        "train-labels-idx1-ubyte": encode_idx(labels),
        "t10k-images-idx3-ubyte": encode_idx(images[:5]),
        "t10k-labels-idx1-ubyte": encode_idx(labels[:5]),
    }
    packed = {f"{name}.gz": gzip.compress(content) for name, content in unpacked.items()}
    folder.mkdir()
    for name, content in packed.items():
        (folder / name).write_bytes(content)
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in packed.items()]
    monkeypatch.setattr(download.MNIST, "resources", resources)
    monkeypatch.setattr(download, "MNIST_SIZES", {name: len(content) for name, content in packed.items()})
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in unpacked.items()}
    monkeypatch.setattr(download, "MNIST_SHA256", hashes)
    return unpacked


def stand_in_weights(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the stage expect ``content`` for torchvision's ImageNet weights."""
    monkeypatch.setattr(initial_weights, "IMAGENET_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(initial_weights, "IMAGENET_SIZE", len(content))


def random_weights() -> bytes:
    """Make a file like torchvision's of the ImageNet weights, the numbers in it random."""
    file = io.BytesIO()
    torch.save(made_up(), file)
    return file.getvalue()


def made_up(seed: int = 1) -> dict[str, torch.Tensor]:
    """Make what that file holds: a state dict of ResNet-18 with three channels and 1,000 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return resnet18().state_dict()
