"""Where the project is. ``dvc exp run --temp`` and the queue run a stage elsewhere, in a folder of its own."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the sources that run


def project_root() -> Path:
    """Find the project that a command was started from.

    That is the current folder, but for ``dvc exp run --temp`` and the queue, which say it in ``DVC_ROOT``
    (dvc/repo/experiments/queue/base.py).
    """
    return Path(os.environ.get("DVC_ROOT", "."))


def loses_experiments() -> bool:
    """Tell whether DVC runs this for ``dvc exp run --temp`` or the queue in a shallow clone.

    DVC brings such an experiment home by Git, which fails there without a word.
    """
    root = project_root()
    if "DVC_EXP_NAME" not in os.environ or root.resolve() == Path.cwd().resolve():
        return False
    command = ["git", "-C", str(root), "rev-parse", "--is-shallow-repository"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "true"
