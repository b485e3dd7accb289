"""What the ``download`` stage got: ``data/manifest.json``."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from src.pipeline.errors import UserError
from src.pipeline.files import read_json, sha256

MANIFEST_FILE = Path("data/manifest.json")
MNIST_DIR = Path("data/mnist")
WEIGHTS_DIR = Path("data/weights")


class Manifest(BaseModel):
    """The data and the initial weights. Two machines that got the same bytes have the same manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str  # "mnist" or "sample"
    training_images: int = Field(gt=0, le=60_000)
    test_images: int = Field(gt=0, le=10_000)
    initial_weights: str  # "imagenet1k_v1", "random", or the name of the user's file
    weights_file: Annotated[Path, PlainSerializer(Path.as_posix)] | None  # None where the initial weights are random
    sha256: dict[str, str]  # of each file, by its path

    def check(self, path: Path) -> None:
        """Raise `UserError` unless the file at ``path`` is the one that was downloaded."""
        if not path.is_file() or sha256(path) != self.sha256.get(path.as_posix()):
            raise UserError(f"{path} is not the file that {MANIFEST_FILE} names; run `dvc repro -f download`")


def load_manifest() -> Manifest:
    """Read ``data/manifest.json``.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return Manifest.model_validate(read_json(MANIFEST_FILE))
    except (UserError, ValidationError) as error:
        raise UserError(f"{MANIFEST_FILE} is missing or damaged; run `dvc repro -f download`") from error
