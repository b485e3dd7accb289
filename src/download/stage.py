"""Stage ``download``: MNIST, the weights to start from, and a manifest of both. The only stage that uses a network."""

import gzip

from torchvision.datasets import MNIST

from src.download.fetch import FetchError, fetch_and_keep, from_environment, has_sha256
from src.download.initial_weights import (
    RANDOM,
    WEIGHTS_FILES,
    InitialWeights,
    copy_own,
    download_torchvision,
    remove_other_weights,
    unpack_imagenet,
)
from src.download.sample import sample_files
from src.mnist.dataset import Manifest
from src.pipeline.files import sha256, write_file, write_json
from src.pipeline.params import load_params
from src.pipeline.paths import MANIFEST_FILE, MNIST_DIR, RAW_DIR, TRY_AGAIN, WEIGHTS_DIR, WRITERS_FILES
from src.pipeline.process import UserError, require_unchanged_inputs

MNIST_SIZES = {  # bytes, of the published .gz files; torchvision has their MD5 sums
    "train-images-idx3-ubyte.gz": 9_912_422,
    "train-labels-idx1-ubyte.gz": 28_881,
    "t10k-images-idx3-ubyte.gz": 1_648_877,
    "t10k-labels-idx1-ubyte.gz": 4_542,
}
MNIST_SHA256 = {  # of the same files, unpacked
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
IMAGE_COUNTS = {"mnist": (60_000, 10_000), "sample": (4_000, 1_000)}  # for training and for the test
WITHOUT_TORCHVISION = "-S weights=imagenet, or -S weights=FILE with a copy of that file"
WITHOUT_MNIST = (
    "point MNIST_MIRROR at a copy (a URL or a path), or -S dataset=sample, or unset it, with offline_fallback=true"
)
SYSTEM_FILES = (".DS_Store", "._*", "Thumbs.db", "desktop.ini")  # left by file managers; .dvcignore names them


def main() -> None:
    params = load_params()
    clean_up()

    # The initial weights. A wrong file of the user's own ends this before anything is written.
    if params.weights == "imagenet":
        initial_weights = unpack_imagenet()
    elif params.weights == "random":
        initial_weights = RANDOM
    elif params.weights != "torchvision":
        initial_weights = copy_own(params.weights)
    else:
        try:
            initial_weights = download_torchvision()
        except FetchError as error:
            raise UserError(explain(error, WITHOUT_TORCHVISION)) from error

    # MNIST, or the sample where it can't be downloaded.
    dataset, warnings = params.dataset, []
    if dataset == "mnist":
        try:
            download_mnist()
        except FetchError as error:
            if not params.offline_fallback or from_environment("MNIST_MIRROR"):  # who names a source wants its data
                raise UserError(explain(error, WITHOUT_MNIST)) from error
            dataset = "sample"
            warnings = [
                "MNIST could not be downloaded: going on with a SAMPLE of 5,000 images.",
                *error.reasons,
                f"Once the network is there: {TRY_AGAIN}",
            ]
    if dataset == "sample":
        for name, content in sample_files().items():
            write_file(RAW_DIR / name, content)

    # The manifest of both.
    require_unchanged_inputs()
    remove_other_weights(initial_weights)
    write_manifest(dataset, initial_weights)
    if warnings:
        print("\n".join(["", "!" * 80, *(f"!! {line}" for line in warnings), "!" * 80, ""]))
    print(f"download: {dataset}, initial weights {initial_weights.name}; see {MANIFEST_FILE}")


def download_mnist() -> None:
    """Bring MNIST's four files to ``data/mnist``, unpacked. Files that are already there and right are not fetched.

    ``MNIST_MIRROR``, a URL or a folder, is tried before torchvision's mirrors.

    Raises:
        FetchError: none of them has one of the files.
    """
    mirrors = [*from_environment("MNIST_MIRROR"), *MNIST.mirrors]
    for name, md5 in MNIST.resources:
        path = RAW_DIR / name.removesuffix(".gz")
        if not has_sha256(path, MNIST_SHA256[path.name]):
            sources = [f"{mirror.rstrip('/')}/{name}" for mirror in mirrors]
            content = fetch_and_keep(name, sources, MNIST_SIZES[name], f"md5:{md5}")
            write_file(path, gzip.decompress(content))


def clean_up() -> None:
    """Remove what a kill left in this stage's folders.

    Raises:
        UserError: a file lies there that this stage did not write.
    """
    ours = {RAW_DIR / name for name in MNIST_SHA256} | {*WEIGHTS_FILES}
    left_by_a_kill = {path.with_name(f".{path.name}.partial") for path in ours}
    for path in sorted([*MNIST_DIR.rglob("*"), *WEIGHTS_DIR.rglob("*")]):
        if path in left_by_a_kill:
            path.unlink()
        elif path.is_file() and path not in ours and not any(path.match(name) for name in SYSTEM_FILES):
            raise UserError(f"{path} is not this project's: DVC would take it for data; move it elsewhere")


def write_manifest(dataset: str, weights: InitialWeights) -> None:
    """Write ``data/manifest.json``."""
    files = [RAW_DIR / name for name in MNIST_SHA256] + ([weights.file] if weights.file else [])
    knows_writers = dataset == "mnist"
    if knows_writers:
        files += WRITERS_FILES.values()
    training_images, test_images = IMAGE_COUNTS[dataset]
    manifest = Manifest(
        dataset=dataset,
        training_images=training_images,
        test_images=test_images,
        validation_split="writer" if knows_writers else "class",
        initial_weights=weights.name,
        weights_file=weights.file,
        sha256={path.as_posix(): sha256(path) for path in files},
    )
    write_json(MANIFEST_FILE, manifest.model_dump(mode="json"))


def explain(error: FetchError, ways_out: str) -> str:
    """Say why each source lacks the file, and what the ways out are."""
    return "\n".join([f"{error}:", *(f"  {reason}" for reason in error.reasons), f"ways out: {ways_out}"])
