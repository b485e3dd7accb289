"""The optimizer, the schedule of its learning rate, and the decay of the averaged weights."""

import torch
from torch import nn

from src.pipeline.params import Params


def build_optimizer(params: Params, model: nn.Module) -> torch.optim.Optimizer:
    """Build Adam or AdamW over all weights, fused: a third of the time of the plain one on a CPU."""
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.optimizer]
    return optimizer(model.parameters(), lr=params.lr, weight_decay=params.weight_decay, fused=True)


def build_schedule(
    params: Params, optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Set the learning rate of each step: constant, or one cycle (Smith 2017, https://arxiv.org/abs/1708.07120)."""
    if params.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    # Adam's beta1 stays where it is: only the rate cycles. The cycle is one step longer than the run: its last rate is
    # a few millionths of the peak, and would change nothing.
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=params.lr, total_steps=total_steps + 1, cycle_momentum=False
    )


def average_decay(ema_decay: float, step: int) -> float:
    """Compute the decay of the averaged weights at a step, counted from 0 over the whole run.

    It starts small and nears ``ema_decay``, so that the first weights are soon forgotten however short the run is: the
    rule of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    """
    return min(ema_decay, (1 + step) / (10 + step))
