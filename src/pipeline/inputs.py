"""What DVC counts as the inputs of the stage that it runs in this process."""

import hashlib
import os
from pathlib import Path

import yaml


def hash_inputs() -> dict[str, str]:
    """Hash each file that the stage depends on, and each parameter's value: by ``path``, or ``path: parameter``.

    Empty where DVC does not run this. Of a folder of sources the Python files count, not what editors leave there.
    """
    if "DVC_STAGE" not in os.environ:  # DVC sets it: "train", or "src/reader/dvc.yaml:export"
        return {}
    name = os.environ["DVC_STAGE"].rpartition(":")[2]
    pipelines = [yaml.safe_load(file.read_text()) for file in (Path("dvc.yaml"), *Path("src").glob("*/dvc.yaml"))]
    stage = next(pipeline["stages"][name] for pipeline in pipelines if name in pipeline["stages"])
    files = []
    for path in map(Path, stage["deps"]):
        pattern = "*.py" if path.parts[0] == "src" else "*"
        files += sorted(path.rglob(pattern)) if path.is_dir() else [path]
    hashes = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}
    values = yaml.safe_load(Path("params.yaml").read_text())
    names = values if stage["params"] == [{"params.yaml": None}] else stage["params"]  # the whole file
    return hashes | {f"params.yaml: {name}": repr(values.get(name)) for name in names}
