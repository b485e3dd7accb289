"""What training and evaluation share: the device, its settings, and the true mean of loss and accuracy."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from src.dataset import Images
from src.distributed import Processes
from src.errors import UserError
from src.transforms import to_input

EVALUATION_PIXELS = 1000 * 28 * 28  # per batch, so that memory does not grow with the image size


class Metrics(NamedTuple):
    """The mean cross-entropy loss per image and the share of images whose class is right."""

    loss: float
    accuracy: float


class Tally:
    """Sums of loss and right answers, kept on the device so that adding a batch never waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.images = 0
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: logits (N, C), labels (N,) int64. The loss is plain cross-entropy, whatever is optimised."""
        with torch.no_grad():
            loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            self._sums += torch.stack([loss.double(), (logits.argmax(1) == labels).sum().double()])
        self.images += len(labels)

    def gather(self, processes: Processes) -> torch.Tensor:
        """The sums of loss and right answers and the number of images, of each process: (count, 3) float64."""
        return processes.gather(torch.cat([self._sums, self._sums.new_tensor([self.images])]))

    def restore(self, sums: torch.Tensor) -> None:
        """Go on from one process's row of `gather`."""
        self._sums.copy_(sums[:2])
        self.images = int(sums[2])

    def metrics(self, processes: Processes) -> Metrics:
        """The means per image over all processes so far. Waits for the device."""
        loss, right, images = self.gather(processes).sum(0).tolist()
        return Metrics(loss / images, right / images)


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


def batch_predictions(
    model: nn.Module, data: Images, image_size: int, machine: Machine
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (logits (N, C) float32, labels (N,) int64) for each batch of ``data``, in its order."""
    batch_size = max(1, EVALUATION_PIXELS // image_size**2)
    model.eval()
    for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True):
        if not len(labels):  # more processes than images
            continue
        with torch.inference_mode(), machine.autocast():
            inputs = to_input(images, image_size).contiguous(memory_format=torch.channels_last)
            logits = model(inputs).float()
        yield logits, labels.long()


def evaluate(model: nn.Module, data: Images, image_size: int, machine: Machine, processes: Processes) -> Metrics:
    """The mean loss and the accuracy of ``model`` on the ``data`` of all processes, of which each holds its share."""
    tally = Tally(machine.device)
    for logits, labels in batch_predictions(model, data, image_size, machine):
        tally.add(logits, labels)
    return tally.metrics(processes)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # where there is no such call: macOS, Windows


def _cpu_has_bf16() -> bool:
    """Whether oneDNN has bf16 matrix instructions here (AVX512-BF16, AMX or Arm BF16), not only an emulation."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
