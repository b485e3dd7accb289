"""The processes that train together under ``torchrun``: how they share the work and stay in step.

Under plain ``python`` there is one process, and everything here does nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from src.pipeline.errors import UserError
from src.train.sync_batchnorm import SyncBatchNorm2d

TIMEOUT = timedelta(minutes=10)  # for a process that hangs; one that dies is noticed at once
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}  # by the device's type


class ProcessGroup:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that prints and writes."""
        return self.rank == 0

    def shard(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take this process's rows of ``tensor``. The shards differ by one row at most and together are all of it."""
        return tensor.tensor_split(self.world_size)[self.rank]

    def all_gather(self, values: torch.Tensor) -> torch.Tensor:
        """Gather the ``values`` (K,) of all processes: (world_size, K), the same everywhere."""
        rows = values.new_zeros(self.world_size, len(values))
        rows[self.rank] = values
        if self.world_size > 1:
            dist.all_reduce(rows)  # adds zeros, so the rows arrive to the bit
        return rows

    def all_reduce_any(self, *flags: bool) -> list[bool]:
        """Tell for each flag whether any process has it set, so that all take the same turn."""
        return self.all_gather(torch.tensor(flags, dtype=torch.int32)).any(0).tolist()

    def broadcast(self, value: Any) -> Any:
        """Send the main process's ``value`` to all of them."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def require_same(self, values: dict[str, Any]) -> None:
        """Raise `UserError` in all processes where one's ``values`` are not the main one's; name what differs."""
        expected = self.broadcast(values)
        differing = [name for name in expected | values if values.get(name) != expected.get(name)]
        everybodys = [differing]
        if self.world_size > 1:
            everybodys = [[] for _ in range(self.world_size)]
            dist.all_gather_object(everybodys, differing)
        for rank, names in enumerate(everybodys):
            if names:
                raise UserError(f"process {rank} and process 0 must have the same {', '.join(names)}")

    def convert_sync_batchnorm(self, model: nn.Module) -> nn.Module:
        """Have batch normalisation see the whole batch rather than this process's shard of it."""
        if self.world_size == 1:
            return model
        if next(model.parameters()).device.type != "cpu":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return SyncBatchNorm2d.convert(model)

    def add_gradients(self, model: nn.Module) -> None:
        """Replace each gradient of ``model`` by the sum of all processes' gradients.

        They go in one piece and always in one order. `DistributedDataParallel` regroups them after a process's first
        step, and where more than two numbers are added, their order depends on the grouping: a run that goes on would
        differ in its last bits from one that was never stopped.
        """
        if self.world_size == 1:
            return
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        summed = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(summed)
        parts = summed.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started, for the length of the context.

    Raises:
        UserError: another process is gone, or processes can't share such a device.
    """
    if not dist.is_torchelastic_launched():
        yield ProcessGroup()
        return
    if device.type not in BACKENDS:
        raise UserError(
            f"torchrun's processes can't train on {device.type}; set device to cpu, or launcher to python -m"
        )
    dist.init_process_group(BACKENDS[device.type], timeout=TIMEOUT)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        raise UserError("another process of this run is gone; run the same command again to go on") from error
    finally:
        dist.destroy_process_group()


def _is_lost_peer(error: RuntimeError) -> bool:
    """Tell whether a collective operation failed. Gloo's errors have no type of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
