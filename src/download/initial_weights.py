"""The weights that training starts from: torchvision's ImageNet weights, a file of the user's own, or none."""

from pathlib import Path
from typing import NamedTuple

from torchvision.models import ResNet18_Weights

from src.download.fetch import fetch_and_keep, from_environment, has_sha256, resolve
from src.pipeline.files import write_file
from src.pipeline.params import WEIGHTS_SUFFIXES
from src.pipeline.paths import WEIGHTS_DIR
from src.pipeline.process import UserError
from src.pipeline.project import project_root
from src.weights.state_dict import read_weights

IMAGENET = ResNet18_Weights.IMAGENET1K_V1
IMAGENET_URL = IMAGENET.url
IMAGENET_SIZE = 46_830_571  # bytes
IMAGENET_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
IMAGENET_FILE = WEIGHTS_DIR / IMAGENET_URL.rpartition("/")[2]
OWN_FILES = {suffix: WEIGHTS_DIR / f"own{suffix}" for suffix in WEIGHTS_SUFFIXES}  # copies of the user's
NOTE_FILE = WEIGHTS_DIR / "README.txt"  # DVC warns of an output folder that is empty
WEIGHTS_FILES = (IMAGENET_FILE, *OWN_FILES.values(), NOTE_FILE)  # all that is ever written here


class InitialWeights(NamedTuple):
    """What training starts from."""

    name: str  # as the manifest has it: "imagenet1k_v1", "random", or the name of the user's file
    file: Path | None  # in data/weights; None for random ones
    source: str  # where they come from, for the note beside them


RANDOM = InitialWeights("random", None, "training starts from random weights.")


def download_imagenet() -> InitialWeights:
    """Bring torchvision's ImageNet weights to ``data/weights``; ``RESNET18_WEIGHTS``, a URL or a file, is tried first.

    Raises:
        FetchError: neither source has them.
    """
    if not has_sha256(IMAGENET_FILE, IMAGENET_SHA256):
        sources = [*from_environment("RESNET18_WEIGHTS"), IMAGENET_URL]
        content = fetch_and_keep(IMAGENET_FILE.name, sources, IMAGENET_SIZE, f"sha256:{IMAGENET_SHA256}")
        write_file(IMAGENET_FILE, content)
    return InitialWeights(IMAGENET.name.lower(), IMAGENET_FILE, f"from {IMAGENET_URL}")


def copy_own(path: str) -> InitialWeights:
    """Copy the user's file, whose path starts at the project, to ``data/weights``.

    Raises:
        UserError: it is missing, or holds no ResNet-18 weights, or would be removed; nothing is written.
    """
    original = resolve(path)
    if original.resolve().is_relative_to((project_root() / WEIGHTS_DIR).resolve()):
        raise UserError(f"{path} lies in {WEIGHTS_DIR}, which holds copies and is emptied; move it elsewhere")
    read_weights(original)
    copy = OWN_FILES[original.suffix]
    write_file(copy, original.read_bytes())
    return InitialWeights(original.name, copy, f"a copy of {original.name}")


def remove_other_weights(keep: InitialWeights) -> None:
    """Remove the weights that an earlier run left beside these, and note there where these come from."""
    for file in WEIGHTS_FILES:
        if file not in (keep.file, NOTE_FILE):
            file.unlink(missing_ok=True)
    write_file(NOTE_FILE, f"{keep.file.name if keep.file else None}: {keep.source}\n".encode())
