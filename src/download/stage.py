"""Stage ``download``: the images, the weights to start from, and a manifest of both. It alone uses a network."""

import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from tqdm import tqdm

from src.download.fetch import FetchError, from_environment
from src.download.folder import SYSTEM_FILES, find_pictures
from src.download.initial_weights import (
    RANDOM,
    WEIGHTS_FILES,
    InitialWeights,
    copy_own,
    download_torchvision,
    remove_other_weights,
    unpack_imagenet,
)
from src.download.published import PUBLISHED, class_names, fetch_published, mirror_variable
from src.download.sample import load_sample
from src.images.dataset import DIGITS, Manifest, load_manifest
from src.pipeline.files import replace_file, sha256, write_json
from src.pipeline.params import load_params
from src.pipeline.paths import IMAGES_DIR, IMAGES_FILES, MANIFEST_FILE, TRY_AGAIN, WEIGHTS_DIR, WRITERS_FILES
from src.pipeline.process import UserError, print_styled, require_unchanged_inputs

WITHOUT_TORCHVISION = "-S weights=random, or -S weights=FILE with a copy of that file"


def main() -> None:
    tqdm.set_lock(RLock())  # tqdm's own is of processes: at the end Python 3.14 would warn that it is left behind
    params = load_params()
    clean_up()

    # The initial weights. A wrong file of the user's own ends this before anything is written.
    if params.weights == "imagenet":
        initial_weights = unpack_imagenet(params.network)
    elif params.weights == "random":
        initial_weights = RANDOM
    elif params.weights != "torchvision":
        initial_weights = copy_own(params.weights, params.network)
    else:
        try:
            initial_weights = download_torchvision(params.network)
        except FetchError as error:
            raise UserError(explain(error, WITHOUT_TORCHVISION)) from error

    # The images, or the sample where MNIST can't be downloaded.
    warnings = []
    try:
        data = write_images(params.dataset, params.image_size)
    except FetchError as error:
        variable = mirror_variable(params.dataset)
        fallback = params.offline_fallback and params.dataset == "mnist"
        if not fallback or from_environment(variable):  # who names a source wants its data
            ways_out = f"point {variable} at a copy (a URL or a path), or -S dataset=sample"
            if params.dataset == "mnist":
                ways_out += ", or unset it, with offline_fallback=true"
            raise UserError(explain(error, ways_out)) from error
        data = write_images("sample", params.image_size)
        warnings = [
            "MNIST could not be downloaded: going on with a SAMPLE of 5,000 images.",
            *error.reasons,
            f"Once the network is there: {TRY_AGAIN}",
        ]

    # The manifest of both.
    require_unchanged_inputs()
    remove_other_weights(initial_weights)
    manifest = describe(data, initial_weights)
    write_json(MANIFEST_FILE, manifest.model_dump(mode="json"))
    if warnings:
        print_styled("\n".join(["", "!" * 80, *(f"!! {line}" for line in warnings), "!" * 80, ""]), "bold yellow")
    print(
        f"download: {manifest.dataset}, {manifest.training_images:,} + {manifest.test_images:,} images of "
        f"{len(manifest.class_names)} classes; {manifest.initial_weights} weights; see {MANIFEST_FILE}"
    )


def write_images(dataset: str, image_size: int) -> dict[str, Any]:
    """Write the images and labels of a data set to ``data/images``, and return what the manifest says of them.

    Args:
        dataset: the parameter.
        image_size: side of the user's own pictures, in pixels. What was published keeps its own.

    Raises:
        FetchError: no source has one of the published files.
        UserError: the user's folder is not as it should be.
    """
    if dataset in PUBLISHED and (known := read_known(dataset)):
        return known
    test_split = "published"
    if dataset == "sample":
        names, sets = DIGITS, load_sample()
    elif dataset in PUBLISHED:
        names, sets = class_names(dataset), fetch_published(dataset)
    else:
        names, sets, test_split = find_pictures(dataset, image_size)
    written = {name: write_set(name, part.images, part.labels) for name, part in sets.items()}
    side, mean, std = written["train"]
    return {
        "dataset": Path(dataset).name,
        "class_names": names,
        "side": side,
        "mean": mean,
        "std": std,
        "training_images": len(sets["train"].labels),
        "test_images": len(sets["test"].labels),
        "test_split": test_split,
    }


def read_known(dataset: str) -> dict[str, Any] | None:
    """Read what the manifest says of published images that are all there, so that no network is needed for them."""
    try:
        manifest = load_manifest()
        for file in itertools.chain(*IMAGES_FILES.values()):
            manifest.check(file)
    except UserError:
        return None
    fields = set(Manifest.model_fields) - {"validation_split", "initial_weights", "weights_file", "sha256"}
    return manifest.model_dump(include=fields) if manifest.dataset == dataset else None


def write_set(name: str, images: Iterable[np.ndarray], labels: np.ndarray) -> tuple[int, float, float]:
    """Write the images, one after the other, and the labels of a set.

    Args:
        name: ``train`` or ``test``.
        images: N of them, (S, S) uint8 each.
        labels: (N,) int64.

    Returns:
        S, and to four digits the mean and the standard deviation of all pixels scaled to [0, 1].
    """
    images_file, labels_file = IMAGES_FILES[name]
    total = squares = 0
    with replace_file(images_file) as partial, partial.open("wb") as file:
        for image in tqdm(images, name, len(labels), disable=None, leave=False, unit=" images"):
            if not file.tell():
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *image.shape)}
                write_array_header_1_0(file, header)
            file.write(image.tobytes())
            total += int(image.sum(dtype=np.int64))
            squares += int(np.square(image, dtype=np.int64).sum())
    with replace_file(labels_file) as partial, partial.open("wb") as file:
        np.save(file, labels)
    pixels = len(labels) * image.size
    mean = total / pixels / 255
    return len(image), round(mean, 4), round(math.sqrt(squares / pixels / 255**2 - mean**2), 4)


def clean_up() -> None:
    """Remove what a kill left in this stage's folders.

    Raises:
        UserError: a file lies there that this stage did not write.
    """
    ours = {*itertools.chain(*IMAGES_FILES.values()), *WEIGHTS_FILES}
    left_by_a_kill = {path.with_name(f".{path.name}.partial") for path in ours}
    for path in sorted([*IMAGES_DIR.rglob("*"), *WEIGHTS_DIR.rglob("*")]):
        if path in left_by_a_kill:
            path.unlink()
        elif path.is_file() and path not in ours and not any(map(path.match, SYSTEM_FILES)):
            raise UserError(f"{path} is not this project's: DVC would take it for data; move it elsewhere")


def describe(data: dict[str, Any], weights: InitialWeights) -> Manifest:
    """Describe the images, as `write_images` does, and the weights with the hash of each file."""
    knows_writers = data["dataset"] == "mnist"
    files = [*itertools.chain(*IMAGES_FILES.values()), *([weights.file] if weights.file else [])]
    if knows_writers:
        files += WRITERS_FILES.values()
    return Manifest(
        **data,
        validation_split="writer" if knows_writers else "class",
        initial_weights=weights.name,
        weights_file=weights.file,
        sha256={path.as_posix(): sha256(path) for path in files},
    )


def explain(error: FetchError, ways_out: str) -> str:
    """Say why each source lacks the file, and what the ways out are."""
    return "\n".join([f"{error}:", *(f"  {reason}" for reason in error.reasons), f"ways out: {ways_out}"])
