"""What DVC counts as the inputs of the stage that it runs in this process."""

import hashlib
import os
from pathlib import Path
from typing import Any

import yaml

from src.pipeline.project import ROOT


def hash_inputs() -> dict[str, str]:
    """Hash each file that the stage depends on, and each parameter's value: by ``path``, or ``path: parameter``.

    Empty where DVC runs no stage of this project here. Of a folder of sources the Python files count, not what editors
    leave there.
    """
    name = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # DVC sets it: "train", or "src/reader/dvc.yaml:export"
    if not name or Path.cwd().resolve() != ROOT.resolve():
        return {}
    pipelines = [_read(file).get("stages", {}) for file in (Path("dvc.yaml"), *Path("src").glob("*/dvc.yaml"))]
    stage = next((stages[name] for stages in pipelines if name in stages), {})
    files = []
    for path in map(Path, stage.get("deps", [])):
        pattern = "*.py" if path.parts[0] == "src" else "[!.]*"
        files += sorted(path.rglob(pattern)) if path.is_dir() else [path]
    hashes = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}
    values, names = _read(Path("params.yaml")), stage.get("params", [])
    names = values if names == [{"params.yaml": None}] else names  # the whole file
    return hashes | {f"params.yaml: {name}": repr(values.get(name)) for name in names}


def _read(file: Path) -> dict[str, Any]:
    """Read a mapping in YAML; nothing where somebody has just made it invalid."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
