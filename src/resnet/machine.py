"""Where the arithmetic is done: the device, the precision, the threads."""

import contextlib
import math
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from filelock import FileLock

from src.pipeline.process import UserError
from src.pipeline.project import project_root

CPU_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")  # "quota period", of a container on Linux with cgroup v2
_taken: list[FileLock] = []  # held until this process ends, however it ends


class Machine(NamedTuple):
    """A device and the precision of its matrix work."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """Return a context that does the matrix work in ``dtype``."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def memory(self) -> int:
        """Count the bytes of memory that this process uses, of a CUDA device the most that it has used."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return psutil.Process().memory_info().rss

    def describe(self) -> dict[str, str | int]:
        """Name what the bits of a result depend on: device, precision, threads and the CPU's instructions."""
        return {
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "precision": str(self.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        }

    def __str__(self) -> str:
        plural = "s" if torch.get_num_threads() > 1 else ""
        return "{device}, {precision}, {threads} thread{plural}, {instructions}".format(
            **self.describe(), plural=plural
        )


def set_up_machine(device: str, precision: str, threads: int) -> Machine:
    """Choose the device, the precision and the number of threads, and turn deterministic algorithms on.

    Args:
        device: ``auto`` for an accelerator if PyTorch sees one that can repeat its results to the bit, and else the
            CPU; or a device's type.
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the device has it in hardware.
        threads: of the CPU. Sums are split among them, so results depend on it. 0 for one a logical processor that
            this process may use, shared out where ``torchrun`` starts several processes; no environment variable
            changes it.

    Raises:
        UserError: there is no such device.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what makes cuBLAS deterministic
    # What somebody else than `torchrun` has set is not meant for this process.
    shared_by = int(os.environ["LOCAL_WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1
    torch.set_num_threads(threads or max(1, _usable_processors() // shared_by))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time  # pyrefly: ignore[missing-attribute]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # by default, fp32 would mean TF32 here
    torch.set_float32_matmul_precision("highest")  # and here with TORCH_ALLOW_TF32_CUBLAS_OVERRIDE
    chosen = _choose_device(device)
    bf16 = precision == "bf16" or (precision == "auto" and _has_bf16(chosen))
    return Machine(chosen, torch.bfloat16 if bf16 else torch.float32)


def _choose_device(device: str) -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    # On MPS, max pooling has no deterministic backward pass.
    if device == "cpu" or (device == "auto" and (found is None or found.type == "mps" or _is_too_old(found))):
        return torch.device("cpu")
    if found is None or device not in ("auto", found.type):
        seen = f"finds {found.type}" if found else "finds no GPU"
        raise UserError(f"device = {device}, but PyTorch {seen} here; set device to auto or {found or 'cpu'}")
    if _is_too_old(found):
        name = torch.cuda.get_device_name(found)
        raise UserError(
            f"device = {device}, but this build of PyTorch has no code for {name}; set device to auto or cpu"
        )
    if found.type == "mps":
        return found  # there is never a second one
    count = torch.accelerator.device_count()
    alone = not torch.distributed.is_torchelastic_launched()
    chosen = torch.device(found.type, _take_free(count) if alone else int(os.environ["LOCAL_RANK"]))
    if chosen.index >= count:
        raise UserError(f"process {chosen.index + 1} on this machine has no {found.type} device: there are {count}")
    torch.accelerator.set_device_index(chosen.index)
    return chosen


def _take_free(count: int) -> int:
    """Take the first of ``count`` GPUs that no other process of this project has, or share the first where none is.

    So experiments side by side (``dvc queue start -j 4``) have one each.
    """
    for index in range(count if count > 1 else 0):
        with contextlib.suppress(OSError):  # it is taken, or nothing can be written here
            lock = FileLock(project_root() / ".dvc" / "tmp" / f"gpu-{index}.lock", timeout=0)
            lock.acquire()
            _taken.append(lock)
            return index
    return 0


def _is_too_old(accelerator: torch.device) -> bool:
    """Tell whether PyTorch sees this NVIDIA GPU, but has code for later ones alone: it would fail at once."""
    if accelerator.type != "cuda" or torch.version.cuda is None:  # the latter is AMD's
        return False
    major, minor = torch.cuda.get_device_capability(accelerator)
    built_for = re.findall(r"\d+", " ".join(torch.cuda.get_arch_list()))  # such as sm_75
    return 10 * major + minor < min(map(int, built_for), default=0)


def _usable_processors() -> int:
    """Count the logical processors that this process may run on; a container may have no more than a quota of them."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        return psutil.cpu_count() or 1  # macOS
    count = len(process.cpu_affinity())
    if CPU_QUOTA_FILE.exists():
        quota, period = CPU_QUOTA_FILE.read_text(encoding="ascii").split()
        if quota != "max":
            return min(count, math.ceil(int(quota) / int(period)))
    return count


def _has_bf16(device: torch.device) -> bool:
    """Tell whether ``device`` has bf16 matrix instructions, not only an emulation of them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or sys.platform == "darwin":
        return False  # tried on none; a Mac's CPU may have it, where PyTorch's build for Macs makes no use of it
    capabilities = torch.cpu.get_capabilities()  # of the processor; what PyTorch makes of it can be set to less
    names = ("avx512_bf16", "amx_bf16") if torch.backends.cpu.get_cpu_capability() == "AVX512" else ("bf16",)
    return any(capabilities.get(name, False) for name in names)
