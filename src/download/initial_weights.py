"""The weights that training starts from: the project's, torchvision's, a file of the user's own, or none."""

from pathlib import Path
from typing import NamedTuple

import safetensors.torch
from torchvision.models import get_model_weights

from src.download.fetch import fetch_and_keep, resolve
from src.download.int8 import dequantise
from src.pipeline.files import write_file
from src.pipeline.params import NETWORKS, WEIGHTS_SUFFIXES
from src.pipeline.paths import IMAGENET_FILE, WEIGHTS_DIR
from src.pipeline.process import UserError
from src.pipeline.project import project_root
from src.weights.state_dict import read_weights

UNPACKED_FILE = WEIGHTS_DIR / "imagenet.safetensors"
TORCHVISION = {network: get_model_weights(network)["IMAGENET1K_V1"] for network in NETWORKS}
TORCHVISION_FILES = {network: WEIGHTS_DIR / Path(weights.url).name for network, weights in TORCHVISION.items()}
OWN_FILES = {suffix: WEIGHTS_DIR / f"own{suffix}" for suffix in WEIGHTS_SUFFIXES}  # copies of the user's
NOTE_FILE = WEIGHTS_DIR / "README.txt"  # DVC warns of an output folder that is empty
WEIGHTS_FILES = (UNPACKED_FILE, *TORCHVISION_FILES.values(), *OWN_FILES.values(), NOTE_FILE)  # all ever written here


class InitialWeights(NamedTuple):
    """What training starts from."""

    name: str  # as the manifest has it
    file: Path | None  # in data/weights; None for random ones
    source: str  # where they come from, for the note beside them


RANDOM = InitialWeights("random", None, "training starts from random weights.")


def unpack_imagenet(network: str) -> InitialWeights:
    """Write the project's own ImageNet weights to ``data/weights``, in single precision.

    Raises `UserError` where the network is not the one that they are of.
    """
    if network != "resnet18":
        raise UserError(f"weights = imagenet is a resnet18; for network = {network} take torchvision, random or a file")
    state = dequantise(safetensors.torch.load_file(IMAGENET_FILE))
    write_file(UNPACKED_FILE, safetensors.torch.save(state))
    return InitialWeights("imagenet_cntk", UNPACKED_FILE, f"from {IMAGENET_FILE.as_posix()}")


def download_torchvision(network: str) -> InitialWeights:
    """Bring torchvision's ImageNet weights to ``data/weights``. Raises `FetchError` where they can't be downloaded.

    The end of their name is the beginning of their SHA-256, which is all that torchvision knows of it.
    """
    file, weights = TORCHVISION_FILES[network], TORCHVISION[network]
    there = [str(file)] if file.is_file() else []
    write_file(file, fetch_and_keep(file.name, [*there, weights.url], f"sha256:{file.stem.rpartition('-')[2]}"))
    return InitialWeights(weights.name.lower(), file, f"from {weights.url}")


def copy_own(path: str, network: str) -> InitialWeights:
    """Copy the user's file, whose path starts at the project, to ``data/weights``.

    Raises:
        UserError: it is missing, or holds no weights of the network, or would be removed; nothing is written.
    """
    original = resolve(path)
    if original.resolve().is_relative_to((project_root() / WEIGHTS_DIR).resolve()):
        raise UserError(f"{path} lies in {WEIGHTS_DIR}, which holds copies and is emptied; move it elsewhere")
    read_weights(original, network)
    copy = OWN_FILES[original.suffix]
    write_file(copy, original.read_bytes())
    return InitialWeights(original.name, copy, f"a copy of {original.name}")


def remove_other_weights(keep: InitialWeights) -> None:
    """Remove the weights that an earlier run left beside these, and note there where these come from."""
    for file in WEIGHTS_FILES:
        if file not in (keep.file, NOTE_FILE):
            file.unlink(missing_ok=True)
    write_file(NOTE_FILE, f"{keep.file.name if keep.file else None}: {keep.source}\n".encode())
