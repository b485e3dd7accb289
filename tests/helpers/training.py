"""Training on a few real digits, in seconds, and what is left of it to compare."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from helpers.project import quick_params
from src.images.dataset import DIGITS, Images, Manifest
from src.pipeline.files import sha256, write_json
from src.pipeline.params import Params
from src.pipeline.paths import IMAGES_FILES, MANIFEST_FILE
from src.resnet.inference import InputFormat
from src.resnet.machine import Machine

MNIST_INPUT = InputFormat(28, 0.1307, 0.3081)
MACHINE = Machine(torch.device("cpu"), torch.float32)
FROM_RANDOM_WEIGHTS = Manifest(
    dataset="sample",
    class_names=DIGITS,
    side=28,
    mean=0.1307,
    std=0.3081,
    training_images=75,
    test_images=20,
    test_split="published",
    validation_split="class",
    initial_weights="random",
    weights_file=None,
    sha256={},
)


def small_params(**values: object) -> Params:
    """Parameters for `small_sets`: two epochs of five steps, each of 15 images."""
    return quick_params(**{"epochs": 2, "batch_size": 16, "precision": "fp32"} | values)


def small_sets(digits: tuple) -> dict[str, Images]:
    """Some of the `digits`, of all classes: 75 to train on, 21 for validation, 20 for the test.

    Two processes can share none of these batches equally, nor the validation set.
    """
    images, labels = (array[::43] for array in digits)  # 117 of 5,000, which are sorted by class
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).numpy()
    parts = {"train": shuffled[:75], "validation": shuffled[75:96], "test": shuffled[96:116]}
    return {name: Images(images[part], labels[part].astype(np.int64)) for name, part in parts.items()}


def small_model() -> nn.Module:
    """Build a network with all kinds of layers and buffers that ResNet-18 has, a thousandth of its size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 10),
        )


class Killed(BaseException):
    """The process is gone: nothing is caught, saved or tidied up any more."""


class StopAt:
    """In place of a `StopSignal`: one that comes at the n-th time that a run looks for it, None for never.

    A run looks after each step, and after each batch of the statistics and of the evaluation: with `small_sets` eight
    times an epoch. A signal that ``kills`` is SIGKILL, and the run gets no chance to save; otherwise it is SIGTERM.
    """

    def __init__(self, look: int | None = None, *, kills: bool = False) -> None:
        self._look, self._kills, self._looks = look, kills, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def received(self) -> int | None:
        self._looks += 1
        if self._looks != self._look:
            return None
        if self._kills:
            raise Killed
        return signal.SIGTERM


def differences(left: Any, right: Any, name: str = "") -> list[str]:
    """List where two nested states differ in type, shape or any bit, by the path to the place."""
    if type(left) is not type(right):
        return [name]
    if isinstance(left, torch.Tensor):
        same = left.dtype == right.dtype and torch.equal(left, right)
        return [] if same else [name]
    if isinstance(left, Mapping):
        if list(left) != list(right):
            return [f"the keys of {name or 'all'}"]
        return [place for key in left for place in differences(left[key], right[key], f"{name}/{key}")]
    if isinstance(left, Sequence) and not isinstance(left, str):
        if len(left) != len(right):
            return [f"the length of {name}"]
        pairs = enumerate(zip(left, right, strict=True))
        return [place for index, pair in pairs for place in differences(*pair, f"{name}/{index}")]
    return [] if left == right else [name]


def write_data(folder: Path, digits: tuple, *, training: int, test: int) -> None:
    """Write digits as ``download`` would, at equal distances so that all classes are there, and a manifest."""
    images, labels = digits
    chosen = np.arange(0, len(labels), len(labels) // (training + test))
    parts = {"train": chosen[:training], "test": chosen[-test:]}
    hashes = {}
    for name, part in parts.items():
        for path, array in zip(IMAGES_FILES[name], (images[part], labels[part].astype(np.int64)), strict=True):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / path, array)
            hashes[path.as_posix()] = sha256(folder / path)
    update = {"training_images": training, "test_images": test, "sha256": hashes}
    write_json(folder / MANIFEST_FILE, FROM_RANDOM_WEIGHTS.model_copy(update=update).model_dump())


def write_small_project(folder: Path, digits: tuple, **values: object) -> None:
    """Write what ``src.train`` reads: `small_params` but for ``values``, and data of the size of `small_sets`."""
    write_data(folder, digits, training=96, test=20)
    params = small_params(**{"validation_size": 0.2, "device": "cpu", "threads": 1} | values)
    write_json(folder / "params.yaml", params.model_dump())  # JSON is YAML
