"""The mean loss and the accuracy of a network's answers."""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Metrics(NamedTuple):
    """The mean cross-entropy per image, and the share of images whose class is right."""

    loss: float
    accuracy: float


class MeanMetrics:
    """Sums over batches of any size, from which the true means per image come.

    The sums stay on the device, so that adding a batch never waits for it.

    Attributes:
        totals: (3,), the sum of the losses, the number of right answers, the number of images.
    """

    def __init__(self, device: torch.device) -> None:
        has_float64 = device.type in ("cpu", "cuda")  # not MPS, and not all of XPU
        dtype = torch.float64 if has_float64 else torch.float32
        self.totals = torch.zeros(3, dtype=dtype, device=device)

    @torch.no_grad()
    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: logits (N, C), labels (N,) int64. The loss is plain cross-entropy, whatever is optimised."""
        self.totals[0] += F.cross_entropy(logits.float(), labels, reduction="sum")
        self.totals[1] += (logits.argmax(1) == labels).sum()
        self.totals[2] += len(labels)


def mean_metrics(totals: torch.Tensor) -> Metrics:
    """Divide the totals (3,) by the number of images. Waits for the device."""
    loss, right, images = totals.tolist()
    return Metrics(loss / images, right / images)
