"""A few real digits as the ``download`` stage would leave them."""

import json

import numpy as np

from helpers.project import Project
from src.download.sample import encode_idx
from src.mnist.dataset import mnist_files
from src.mnist.dataset import MANIFEST_FILE
from src.pipeline.files import sha256


def write_data(project: Project, digits: tuple[np.ndarray, np.ndarray], *, training: int, test: int) -> None:
    """Write ``training`` and ``test`` digits, at equal distances so that all classes are there, and a manifest."""
    images, labels = digits
    chosen = np.arange(0, len(labels), len(labels) // (training + test))
    parts = {"train": chosen[:training], "t10k": chosen[-test:]}
    hashes = {}
    for split, part in parts.items():
        for path, array in zip(mnist_files(split), (images[part], labels[part]), strict=True):
            file = project.path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_idx(array))
            hashes[path.as_posix()] = sha256(file)
    manifest = {
        "dataset": "sample",
        "training_images": training,
        "test_images": test,
        "initial_weights": "random",
        "weights_file": None,
        "sha256": hashes,
    }
    (project.path / MANIFEST_FILE).write_text(json.dumps(manifest))
