"""The state of a run that is under way, saved so that a killed run goes on where it was.

A checkpoint belongs to one exact run. Its folder is named by a hash of all that the result depends on, so another
run never finds it, and the same run finds it from wherever it is started: ``dvc repro``, ``dvc exp run``, the queue.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

from src.images.dataset import Manifest
from src.pipeline.files import sha256, write_file
from src.pipeline.params import Params
from src.pipeline.process import first_line, imported_sources, is_out_of_memory
from src.pipeline.project import ROOT, project_root
from src.resnet.machine import Machine
from src.train.processes import ProcessGroup

KEPT = 2  # checkpoints of a run that are left: the newest, and the one before in case the newest is damaged
DIGEST_SIZE = hashlib.sha256().digest_size
WITHOUT_EFFECT = {"checkpoint_minutes", "launcher"}  # of the processes their number counts, not what starts them


def run_identity(params: Params, manifest: Manifest, machine: Machine, group: ProcessGroup) -> dict[str, Any]:
    """List all that the result depends on. Two runs are the same run where all of it is the same.

    Raises:
        UserError: the processes of this run don't agree on it. They may be on different machines.
    """
    shared = {
        **params.model_dump(exclude=WITHOUT_EFFECT),
        **manifest.sha256,
        **{file.relative_to(ROOT).as_posix(): sha256(file) for file in imported_sources()},
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    group.require_same(shared | {"precision": str(machine.dtype)})  # auto may be another on each machine
    here = {
        "machine": machine.describe(),
        "processor": {  # oneDNN goes by more of its instructions than PyTorch, and by its caches
            name: value for name, value in torch.cpu.get_capabilities().items() if not name.startswith("num_")
        },
    }
    return shared | {"processes": group.all_gather(here)}


class Checkpoint:
    """The saved state of the run with one `run_identity`."""

    def __init__(self, identity: Mapping[str, Any]) -> None:
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.folder = project_root() / ".dvc" / "tmp" / "checkpoints" / name[:16]  # beside DVC's own, out of Git
        self._saved_at = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last save, or since the start."""
        return time.monotonic() - self._saved_at

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write ``state`` and remove all but the last `KEPT`.

        Args:
            step: how far the run is; the highest is the newest.
            state: tensors and plain values, nested.

        Raises:
            UserError: it can't be written; the earlier checkpoints are untouched.
        """
        self._saved_at = time.monotonic()
        content = io.BytesIO()
        torch.save(state, content)
        digest = hashlib.sha256(content.getbuffer()).digest()
        # The process's number keeps two that happen to do the same run from writing one file.
        write_file(self.folder / f"{step:09d}.pt", digest + content.getvalue(), suffix=f".{os.getpid()}")
        for path in self._newest_first()[KEPT:]:
            with contextlib.suppress(OSError):  # it is not in the way
                path.unlink()

    def load(self) -> dict[str, Any] | None:
        """Read the newest sound state to the CPU; None where there is none.

        A damaged file is set aside under another name, with a line that says so. Nothing in a file is executed.

        Raises:
            OSError, MemoryError, RuntimeError: the newest file can't be read, or memory is short. It is left as it is.
        """
        for path in self._newest_first():
            try:
                content = memoryview(path.read_bytes())
                if hashlib.sha256(content[DIGEST_SIZE:]).digest() != content[:DIGEST_SIZE]:
                    raise ValueError("its hash is wrong")
                return torch.load(io.BytesIO(content[DIGEST_SIZE:]), map_location="cpu", weights_only=True)
            except FileNotFoundError:  # the same run, done elsewhere, has just succeeded
                continue
            except Exception as error:  # torch.load raises many kinds for a file that is no checkpoint
                if isinstance(error, OSError) or is_out_of_memory(error):
                    raise  # the file may be sound
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                print(f"warning: {path} is damaged ({first_line(error)}), set aside as {aside.name}")
        return None

    def remove(self) -> None:
        """Remove all that was saved of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"), reverse=True)
