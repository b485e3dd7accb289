"""Batch normalisation over the batch of all processes, on the CPU. PyTorch's ``nn.SyncBatchNorm`` is for GPUs alone."""

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


class SyncBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose mean and variance are those of all processes' shards together.

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
