"""The true mean of loss and accuracy."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from src.mnist.images import Images
from src.pipeline.machine import Machine
from src.resnet.inference import batch_predictions
from src.train.distributed import Processes


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


def evaluate(model: nn.Module, data: Images, image_size: int, machine: Machine, processes: Processes) -> Metrics:
    """The mean loss and the accuracy of ``model`` on the ``data`` of all processes, of which each holds its share."""
    tally = Tally(machine.device)
    for logits, labels in batch_predictions(model, data, image_size, machine):
        tally.add(logits, labels)
    return tally.metrics(processes)
