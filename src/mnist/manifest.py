"""What the ``download`` stage got: ``data/manifest.json``."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from src.pipeline.errors import UserError
from src.pipeline.files import sha256

WEIGHTS_DIR = Path("data/weights")
MANIFEST_FILE = Path("data/manifest.json")


class Manifest(BaseModel):
    """What the ``download`` stage got: nothing in it differs between two machines that got the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    training_images: int = Field(gt=0, le=60_000)
    test_images: int = Field(gt=0, le=10_000)
    initial_weights: str  # "imagenet1k_v1" or "random"
    sha256: dict[str, str]  # by path

    @property
    def weights_file(self) -> Path | None:
        """The file of the initial weights, None where they are random."""
        return next((path for path in map(Path, self.sha256) if path.parent == WEIGHTS_DIR), None)


def load_manifest() -> Manifest:
    """Read ``data/manifest.json``.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return Manifest.model_validate(json.loads(MANIFEST_FILE.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{MANIFEST_FILE} is missing or damaged; run `dvc repro download`") from error


def check_file(manifest: Manifest, path: Path) -> None:
    """Raise `UserError` unless the file at ``path`` is the one that the manifest names."""
    if not path.is_file() or sha256(path) != manifest.sha256.get(path.as_posix()):
        raise UserError(f"{path} is not the file that {MANIFEST_FILE} names; run `dvc repro download`")
