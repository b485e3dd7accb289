"""A few real digits as the ``download`` stage would leave them."""

import struct

import numpy as np

from helpers.project import Project
from src.mnist.dataset import Manifest
from src.pipeline.files import sha256
from src.pipeline.paths import MANIFEST_FILE, MNIST_FILES


def write_data(project: Project, digits: tuple[np.ndarray, np.ndarray], *, training: int, test: int) -> None:
    """Write ``training`` and ``test`` digits, at equal distances so that all classes are there, and a manifest."""
    images, labels = digits
    chosen = np.arange(0, len(labels), len(labels) // (training + test))
    parts = {"train": chosen[:training], "test": chosen[-test:]}
    hashes = {}
    for name, part in parts.items():
        for path, array in zip(MNIST_FILES[name], (images[part], labels[part]), strict=True):
            file = project.path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(idx(array))
            hashes[path.as_posix()] = sha256(file)
    manifest = Manifest(
        dataset="sample",
        training_images=training,
        test_images=test,
        initial_weights="random",
        weights_file=None,
        sha256=hashes,
    )
    (project.path / MANIFEST_FILE).write_text(manifest.model_dump_json())


def idx(array: np.ndarray) -> bytes:
    """Encode a uint8 array in the IDX format of MNIST's files (http://yann.lecun.com/exdb/mnist/)."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
