"""The processes that train together under ``torchrun``: how they share the work and stay in step.

Under plain ``python`` there is one process, and everything here does nothing.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from src.pipeline.errors import UserError

TIMEOUT = timedelta(minutes=10)  # for a process that hangs; one that dies is noticed at once


class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that prints and writes."""
        return self.rank == 0

    def share(self, tensor: torch.Tensor) -> torch.Tensor:
        """This process's rows of ``tensor``; the shares differ by one row at most and together are all of it."""
        return tensor.tensor_split(self.count)[self.rank]

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """The ``values`` (K,) of all processes, (count, K), the same everywhere."""
        rows = values.new_zeros(self.count, len(values))
        rows[self.rank] = values
        if self.count > 1:
            dist.all_reduce(rows)  # adds zeros, so the rows arrive to the bit
        return rows

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether any process has it set, so that all take the same turn."""
        return self.gather(torch.tensor(flags, dtype=torch.int32)).any(0).tolist()

    def from_first(self, value: Any) -> Any:
        """The first process's ``value``, in all of them."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def synchronised(self, model: nn.Module) -> nn.Module:
        """``model`` with batch normalisation over the whole batch rather than this process's share of it."""
        if self.count == 1:
            return model
        if next(model.parameters()).is_cuda:
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                parent, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(parent), attribute, SyncBatchNorm2d.of(module))
        return model

    def parallel(self, model: nn.Module) -> nn.Module:
        """``model`` such that its backward pass leaves the mean of all processes' gradients."""
        return model if self.count == 1 else DistributedDataParallel(model, forward_sync_buffers=False)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. Each result depends on each process's term, so gradients add up too."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(ctx, *gradients)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batch of all processes, on the CPU; ``nn.SyncBatchNorm`` is for GPUs alone.

    Input and output (N, C, H, W), N this process's share.
    """

    momentum: float
    num_batches_tracked: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "SyncBatchNorm2d":
        """One with the weights and statistics of ``norm``."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.load_state_dict(copy.deepcopy(norm.state_dict()))
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        values, dims = x.float(), (0, 2, 3)
        local_count = values.new_tensor([values.numel() / self.num_features])
        sums = _Sum.apply(torch.cat([values.sum(dims), local_count]))
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = values - mean.view(-1, 1, 1)
        variance = _Sum.apply((centred * centred).sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)


@contextmanager
def join(device: torch.device) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, for the length of the context.

    Raises:
        UserError: another process is gone.
    """
    if not dist.is_torchelastic_launched():
        yield Processes()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        raise UserError("another process of this run is gone; run the same command again to go on") from error
    finally:
        dist.destroy_process_group()


def _is_lost_peer(error: RuntimeError) -> bool:
    """Whether a collective operation failed. Gloo's errors have no type of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
