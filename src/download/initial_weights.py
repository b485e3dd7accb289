"""The weights that training starts from: the project's, torchvision's, a file of the user's own, or none."""

from pathlib import Path
from typing import NamedTuple

import safetensors.torch
from torchvision.models import ResNet18_Weights

from src.download.fetch import fetch_and_keep, has_sha256, resolve
from src.download.int8 import dequantise
from src.pipeline.files import write_file
from src.pipeline.params import WEIGHTS_SUFFIXES
from src.pipeline.paths import IMAGENET_FILE, WEIGHTS_DIR
from src.pipeline.process import UserError
from src.pipeline.project import project_root
from src.weights.state_dict import read_weights

UNPACKED_FILE = WEIGHTS_DIR / "imagenet.safetensors"
TORCHVISION = ResNet18_Weights.IMAGENET1K_V1
TORCHVISION_URL = TORCHVISION.url
TORCHVISION_SIZE = 46_830_571  # bytes
TORCHVISION_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
TORCHVISION_FILE = WEIGHTS_DIR / TORCHVISION_URL.rpartition("/")[2]
OWN_FILES = {suffix: WEIGHTS_DIR / f"own{suffix}" for suffix in WEIGHTS_SUFFIXES}  # copies of the user's
NOTE_FILE = WEIGHTS_DIR / "README.txt"  # DVC warns of an output folder that is empty
WEIGHTS_FILES = (UNPACKED_FILE, TORCHVISION_FILE, *OWN_FILES.values(), NOTE_FILE)  # all that is ever written here


class InitialWeights(NamedTuple):
    """What training starts from."""

    name: str  # as the manifest has it
    file: Path | None  # in data/weights; None for random ones
    source: str  # where they come from, for the note beside them


RANDOM = InitialWeights("random", None, "training starts from random weights.")


def unpack_imagenet() -> InitialWeights:
    """Write the project's own ImageNet weights to ``data/weights``, in single precision."""
    state = dequantise(safetensors.torch.load_file(IMAGENET_FILE))
    write_file(UNPACKED_FILE, safetensors.torch.save(state))
    return InitialWeights("imagenet_cntk", UNPACKED_FILE, f"from {IMAGENET_FILE.as_posix()}")


def download_torchvision() -> InitialWeights:
    """Bring torchvision's ImageNet weights to ``data/weights``. Raises `FetchError` where they can't be downloaded."""
    if not has_sha256(TORCHVISION_FILE, TORCHVISION_SHA256):
        known_hash = f"sha256:{TORCHVISION_SHA256}"
        content = fetch_and_keep(TORCHVISION_FILE.name, [TORCHVISION_URL], TORCHVISION_SIZE, known_hash)
        write_file(TORCHVISION_FILE, content)
    return InitialWeights(TORCHVISION.name.lower(), TORCHVISION_FILE, f"from {TORCHVISION_URL}")


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
