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

from src.pipeline.process import UserError

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


class SyncBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose mean and variance are those of all processes' shards together, on the CPU.

    PyTorch's ``nn.SyncBatchNorm`` is for GPUs alone.

    Input and output (N, C, H, W), N this process's shard.
    """

    momentum: float
    num_batches_tracked: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    @classmethod
    def convert(cls, model: nn.Module) -> nn.Module:
        """Replace each ``nn.BatchNorm2d`` in ``model`` by one of these with its weights and statistics."""
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                parent, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(parent), attribute, cls.from_batchnorm(module))
        return model

    @classmethod
    def from_batchnorm(cls, norm: nn.BatchNorm2d) -> "SyncBatchNorm2d":
        """Copy the weights and statistics of ``norm``."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.load_state_dict(copy.deepcopy(norm.state_dict()))
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        values, dims = x.float(), (0, 2, 3)
        local_count = values.new_tensor([values.numel() / self.num_features])
        sums = _AllReduceSum.apply(torch.cat([values.sum(dims), local_count]))
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = values - mean.view(-1, 1, 1)
        variance = _AllReduceSum.apply((centred * centred).sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)


class _AllReduceSum(torch.autograd.Function):
    """The sum of a tensor over all processes. Each result depends on each process's term, so gradients add up too."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _AllReduceSum.forward(ctx, *gradients)
