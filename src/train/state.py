"""What changes while a model is trained: its weights, their average, the optimizer, the schedule, the sums."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from src.pipeline.machine import Machine
from src.pipeline.params import Params
from src.resnet.metrics import MeanMetrics, Metrics
from src.train.batches import Batch
from src.train.optimizer import average_decay, build_optimizer, build_schedule
from src.train.process_group import ProcessGroup


class TrainingState:
    """The state of a run under way.

    Attributes:
        step: how many steps are done.
        history: for each finished epoch the metrics of each set, by its name.
        totals: the sums of the epoch under way, of this process's images.
    """

    def __init__(
        self, params: Params, model: nn.Module, total_steps: int, machine: Machine, group: ProcessGroup
    ) -> None:
        self._machine, self._group = machine, group
        self._label_smoothing, self._ema_decay = params.label_smoothing, params.ema_decay
        model = model.to(machine.device).to(memory_format=torch.channels_last)
        self._model = group.convert_sync_batchnorm(model)
        self._averaged = AveragedModel(self._model, use_buffers=True) if self._ema_decay else None
        self._optimizer = build_optimizer(params, self._model)
        self._scheduler = build_schedule(params, self._optimizer, total_steps)
        self.step = 0
        self.history: list[dict[str, Metrics]] = []
        self.totals = MeanMetrics(machine.device)

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and saved: the averaged one, where there is an average."""
        return self._averaged.module if self._averaged else self._model

    def training_step(self, batch: Batch) -> torch.Tensor:
        """Take one step on this process's shard of a batch; return its loss, on the device."""
        self._model.train()
        with self._machine.autocast():
            logits = self._model(batch.inputs)
        loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=self._label_smoothing)
        # This shard's part of the mean over the whole batch; a factor of 1 for a single process.
        weight = len(batch.labels) / batch.size
        self._optimizer.zero_grad()
        (loss * weight).backward()
        self._group.add_gradients(self._model)
        self._optimizer.step()
        self._scheduler.step()
        if self._averaged:
            self._averaged.multi_avg_fn = get_ema_multi_avg_fn(average_decay(self._ema_decay, self.step))
            self._averaged.update_parameters(self._model)
        self.totals.update(logits, batch.labels)
        self.step += 1
        return loss

    def end_epoch(self, results: dict[str, Metrics]) -> None:
        """Enter an epoch's metrics into the history and start the sums anew."""
        self.history.append(results)
        self.totals = MeanMetrics(self._machine.device)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to go on to the bit. All processes must call it together."""
        return {
            "step": self.step,
            "history": [{name: tuple(metrics) for name, metrics in results.items()} for results in self.history],
            "totals": self._group.all_gather(self.totals.totals),
        } | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.step = state["step"]
        self.history = [{name: Metrics(*metrics) for name, metrics in results.items()} for results in state["history"]]
        self.totals.totals.copy_(state["totals"][self._group.rank])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self._model, "optimizer": self._optimizer, "scheduler": self._scheduler}
        return parts | ({"averaged": self._averaged} if self._averaged else {})
