"""What training and evaluation share: the device, the precision, and the true mean of loss and accuracy."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from src.dataset import Images
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

    def metrics(self) -> Metrics:
        """The means per image so far. Waits for the device."""
        loss, right = self._sums.tolist()
        return Metrics(loss / self.images, right / self.images)


class Machine(NamedTuple):
    """Where the arithmetic is done and in which precision."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """A context that does the matrix work in ``dtype``."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


def set_up_machine(device: str, precision: str) -> Machine:
    """Choose the device and the precision, and turn deterministic algorithms on.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the device has it in hardware.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what makes cuBLAS deterministic
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = cuda, but PyTorch sees no GPU here; set device to auto or cpu")
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    torch.backends.cudnn.benchmark = False
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if kind == "cuda" else _cpu_has_bf16()
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16)
    return Machine(torch.device(kind), torch.bfloat16 if bf16 else torch.float32)


def batch_predictions(
    model: nn.Module, data: Images, image_size: int, machine: Machine
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (logits (N, C) float32, labels (N,) int64) for each batch of ``data``, in its order."""
    batch_size = max(1, EVALUATION_PIXELS // image_size**2)
    model.eval()
    for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True):
        with torch.inference_mode(), machine.autocast():
            inputs = to_input(images, image_size).contiguous(memory_format=torch.channels_last)
            logits = model(inputs).float()
        yield logits, labels.long()


def evaluate(model: nn.Module, data: Images, image_size: int, machine: Machine) -> Metrics:
    """The mean loss and the accuracy of ``model`` on ``data``."""
    tally = Tally(machine.device)
    for logits, labels in batch_predictions(model, data, image_size, machine):
        tally.add(logits, labels)
    return tally.metrics()


def _cpu_has_bf16() -> bool:
    """Whether oneDNN has bf16 matrix instructions here (AVX512-BF16, AMX or Arm BF16), not only an emulation."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
