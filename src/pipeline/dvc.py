"""Where DVC runs a stage: in the project, or for ``dvc exp run --temp`` and the queue in a folder of its own."""

import os
import subprocess
from pathlib import Path

from src.pipeline.errors import UserError


def project_root() -> Path:
    """Find the project that a command was started from.

    That is the current folder, but for ``dvc exp run --temp`` and the queue, which run a stage in a folder of its own
    and say in ``DVC_ROOT`` where the project is (dvc/repo/experiments/queue/base.py).
    """
    return Path(os.environ.get("DVC_ROOT", "."))


def refuse_shallow_clone() -> None:
    """Raise `UserError` for ``dvc exp run --temp`` and the queue in a shallow clone.

    DVC runs them in a folder of its own and brings the experiment home by Git, which fails there without a word.
    """
    root = project_root()
    if "DVC_EXP_NAME" not in os.environ or root.resolve() == Path.cwd().resolve():
        return
    command = ["git", "-C", str(root), "rev-parse", "--is-shallow-repository"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stdout.strip() == "true":
        raise UserError("this clone is shallow, DVC would lose the experiment; run `git fetch --unshallow`")
