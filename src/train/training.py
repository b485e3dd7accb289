"""What changes while a model is trained: its weights, their average, the optimizer, the schedule, the sums."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from src.mnist.images import CLASS_NAMES
from src.pipeline.errors import UserError
from src.pipeline.machine import Machine
from src.pipeline.params import Params
from src.resnet.network import build_model, load_imagenet_weights
from src.train.distributed import Processes
from src.train.metrics import Metrics, Tally
from src.train.seeding import derived_seed


class Training:
    """A run under way.

    Args:
        params: of the run.
        model: as training starts it.
        total_steps: of the whole run.
        machine: to train on.
        processes: to train together with.

    Attributes:
        step: how many steps are done.
        history: for each finished epoch the metrics of each set, by name.
        tally: the sums of the epoch under way.
    """

    def __init__(
        self, params: Params, model: nn.Module, total_steps: int, machine: Machine, processes: Processes
    ) -> None:
        self._machine, self._processes = machine, processes
        self._label_smoothing, self._ema_decay = params.label_smoothing, params.ema_decay
        self._model = processes.synchronised(model.to(machine.device).to(memory_format=torch.channels_last))
        self._network = processes.parallel(self._model)
        self._averaged = AveragedModel(self._model, use_buffers=True) if self._ema_decay else None
        self._optimizer = build_optimizer(params, self._model)
        self._scheduler = build_schedule(params, self._optimizer, total_steps)
        self.step = 0
        self.history: list[dict[str, Metrics]] = []
        self.tally = Tally(machine.device)

    @property
    def kept(self) -> nn.Module:
        """The model that is evaluated and kept: the averaged one, where there is an average."""
        return self._averaged.module if self._averaged else self._model

    def learn(self, inputs: torch.Tensor, labels: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Take one step.

        Args:
            inputs: (N, 1, S, S) float32, this process's share of the batch.
            labels: (N,) int64.
            batch_size: images in the batch of all processes.

        Returns:
            The share's loss, on the device.
        """
        self._model.train()
        with self._machine.autocast():
            logits = self._network(inputs)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self._label_smoothing)
        # The mean over the whole batch, once the processes' gradients are averaged; a factor of 1 where there is one.
        weight = self._processes.count * len(labels) / batch_size
        self._optimizer.zero_grad()
        (loss * weight).backward()
        self._optimizer.step()
        self._scheduler.step()
        if self._averaged:
            self._averaged.multi_avg_fn = get_ema_multi_avg_fn(average_decay(self._ema_decay, self.step))
            self._averaged.update_parameters(self._model)
        self.tally.add(logits, labels)
        self.step += 1
        return loss

    def end_epoch(self, results: dict[str, Metrics]) -> None:
        """Enter an epoch's metrics into the history and start the sums anew."""
        self.history.append(results)
        self.tally = Tally(self._machine.device)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to go on to the bit. All processes must call it together."""
        return {
            "step": self.step,
            "history": [{name: tuple(metrics) for name, metrics in results.items()} for results in self.history],
            "tally": self.tally.gather(self._processes),
        } | {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.step = state["step"]
        self.history = [{name: Metrics(*metrics) for name, metrics in results.items()} for results in state["history"]]
        self.tally.restore(state["tally"][self._processes.rank])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self._model, "optimizer": self._optimizer, "scheduler": self._scheduler}
        return parts | ({"averaged": self._averaged} if self._averaged else {})


def initial_model(params: Params, weights_file: Path | None) -> nn.Module:
    """ResNet-18 as training starts it: from ``weights_file``, and for the rest from the seed alone.

    Raises:
        UserError: the weights file holds no ResNet-18.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(params.seed, "model"))
        model = build_model(len(CLASS_NAMES))
    if weights_file:
        try:
            load_imagenet_weights(model, weights_file, params.conv1_init)
        except ValueError as error:
            raise UserError(str(error)) from error
    return model


def build_optimizer(params: Params, model: nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW over all weights, fused: a third of the time of the plain one on a CPU."""
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.optimizer]
    return optimizer(model.parameters(), lr=params.lr, weight_decay=params.weight_decay, fused=True)


def build_schedule(
    params: Params, optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate of each step: constant, or one cycle (Smith 2017, https://arxiv.org/abs/1708.07120)."""
    if params.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    # Adam's beta1 stays where it is: only the rate cycles. One more step, so that the last update has a rate above 0.
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=params.lr, total_steps=total_steps + 1, cycle_momentum=False
    )


def average_decay(ema_decay: float, step: int) -> float:
    """The decay of the averaged weights at a step, counted from 0 over the whole run.

    It starts small and nears ``ema_decay``, so that the first, random weights are soon forgotten however short the
    run is: the rule of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    """
    return min(ema_decay, (1 + step) / (10 + step))
