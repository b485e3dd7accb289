"""Where the arithmetic is done: the device, the precision, the threads."""

import os
from typing import NamedTuple

import torch

from src.pipeline.errors import UserError


class Machine(NamedTuple):
    """Where the arithmetic is done and in which precision."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """A context that does the matrix work in ``dtype``."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def __str__(self) -> str:
        kind = self.device.type
        name = torch.cuda.get_device_name(self.device) if kind == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


def set_up_machine(device: str, precision: str, threads: int) -> Machine:
    """Choose the device, the precision and the number of threads, and turn deterministic algorithms on.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the device has it in hardware.
        threads: of the CPU. Sums are split among them, so results depend on it. 0 for one a core that this process
            may use, shared out where ``torchrun`` starts several processes; no environment variable changes it.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what makes cuBLAS deterministic
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = cuda, but PyTorch sees no GPU here; set device to auto or cpu")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    torch.set_num_threads(threads or max(1, _usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time  # pyrefly: ignore[missing-attribute]
    torch.backends.cudnn.benchmark = False
    chosen = torch.device("cpu")
    if on_gpu:
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else _cpu_has_bf16()
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16)
    return Machine(chosen, torch.bfloat16 if bf16 else torch.float32)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # where there is no such call: macOS, Windows


def _cpu_has_bf16() -> bool:
    """Whether oneDNN has bf16 matrix instructions here (AVX512-BF16, AMX or Arm BF16), not only an emulation."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
