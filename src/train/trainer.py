"""One training run: its images, its state, its checkpoint, and the processes that share it."""

import copy
import math
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from statistics import fmean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm import tqdm

from src.images.dataset import Images
from src.pipeline.params import Params
from src.pipeline.process import Interrupted, UserError, print_styled
from src.resnet.inference import InputFormat, predict_logits
from src.resnet.machine import Machine
from src.train.batches import Batch, Batches, ImagesOnDevice
from src.train.checkpoint import Checkpoint
from src.train.processes import ProcessGroup
from src.train.signals import StopSignal

CHECK_EVERY = 20  # steps: the loss is looked at, and so the device waited for, once in so many


class Metrics(NamedTuple):
    """The mean cross-entropy per image, and the share of images whose class is right."""

    loss: float
    accuracy: float


class Speed(NamedTuple):
    """What an epoch took. Nothing depends on it."""

    epoch: int
    seconds: float  # with the evaluation
    images_per_second: float  # in training alone
    memory: int  # bytes in use, of a GPU at most


class MeanMetrics:
    """Loss and accuracy over batches of any size: sums, from which `compute` gives the true means per image.

    The sums stay on the device, so that adding a batch never waits for it.

    Attributes:
        totals: (3,), the sum of the losses, the number of right answers, the number of images.
    """

    def __init__(self, device: torch.device) -> None:
        has_float64 = device.type in ("cpu", "cuda")  # not MPS, and not all of XPU
        self.totals = torch.zeros(3, dtype=torch.float64 if has_float64 else torch.float32, device=device)

    @torch.no_grad()
    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: logits (N, C), labels (N,) int64. The loss is plain cross-entropy, whatever is optimised."""
        self.totals[0] += F.cross_entropy(logits.float(), labels, reduction="sum")
        self.totals[1] += (logits.argmax(1) == labels).sum()
        self.totals[2] += len(labels)

    def compute(self, group: ProcessGroup) -> Metrics:
        """Compute the means over the images of all processes. Waits for the device."""
        loss, right, images = map(math.fsum, zip(*group.all_gather(self.totals.tolist()), strict=True))
        return Metrics(loss / images, right / images)


class Trainer:
    """Trains a model epoch by epoch, saves its state as it goes, and stops in good order when asked to.

    Args:
        params: of the run.
        form: what the network takes.
        model: as training starts it.
        sets: the images of ``train``, of ``test``, and of ``validation`` if there are any.
        machine: to train on.
        group: the processes that train together.
        checkpoint: to go on from, and to keep up to date.

    Attributes:
        state: of the run.
        total_steps: how many steps it takes.
        speeds: of the epochs that this process took.
        model: the one that was evaluated at the end of the last epoch.
    """

    def __init__(
        self,
        params: Params,
        form: InputFormat,
        model: nn.Module,
        sets: dict[str, Images],
        machine: Machine,
        group: ProcessGroup,
        checkpoint: Checkpoint,
    ) -> None:
        self._params, self._form, self._machine = params, form, machine
        self._group, self._checkpoint = group, checkpoint
        arrays: dict[int, torch.Tensor] = {}
        on_device = {name: ImagesOnDevice(data, machine.device, arrays) for name, data in sets.items()}
        self._batches = Batches(on_device.pop("train"), params, form, group)
        self._evaluated = on_device
        self.total_steps = max(1, round(params.epochs * len(self._batches)))
        self.state = TrainingState(params, model, self.total_steps, machine, group)
        self.speeds: list[Speed] = []

    @property
    def done(self) -> bool:
        """Whether all epochs are through. The last one may be a part of one."""
        return len(self.state.history) * len(self._batches) >= self.total_steps

    def resume(self) -> None:
        """Go on from the checkpoint, if it holds anything."""
        state = self._group.broadcast(self._checkpoint.load() if self._group.is_main else None)
        if state:
            self.state.load_state_dict(state)
            self.say(f"train: going on from step {self.state.step} of {self.total_steps}, where a run stopped")

    def run_epoch(self, stop: StopSignal) -> dict[str, Metrics]:
        """Train to the end of the epoch, from wherever in it the run stands, and evaluate.

        Raises:
            Interrupted: ``stop`` came; the state is saved.
            UserError: the loss is no number any more.
        """
        start = time.perf_counter()
        rate = self._train(stop) / (time.perf_counter() - start)
        self._save()  # before the evaluation, which a signal then costs nothing
        results = {"train": self.state.totals.compute(self._group)}
        self.model = self.state.evaluated_model(self._plain_inputs(stop))
        results |= {name: self._evaluate(data, stop) for name, data in self._evaluated.items()}
        for metrics in results.values():
            self._check_loss(metrics.loss)
        self.state.end_epoch(results)
        speed = Speed(len(self.state.history), time.perf_counter() - start, rate, self._machine.memory())
        self.speeds.append(speed)
        self.say(self._epoch_line(results, speed))
        return results

    def say(self, line: str) -> None:
        """Print a line, in the main process alone."""
        if self._group.is_main:
            print(line)

    def _train(self, stop: StopSignal) -> int:
        """Take the epoch's steps that are left; return the number of images that they took."""
        epoch, images = len(self.state.history), 0
        first_step = self.state.step - epoch * len(self._batches)
        steps = min(len(self._batches), self.total_steps - epoch * len(self._batches))
        total = self._batches.images * steps // len(self._batches)
        with tqdm(
            desc=self._epoch_name(epoch + 1),
            total=total,
            initial=min(first_step * self._params.batch_size, total),
            unit=" images",
            disable=None if self._group.is_main else True,
            leave=False,
        ) as bar:
            for batch in islice(self._batches.epoch(epoch, first_step), steps - first_step):
                loss = self.state.training_step(batch)
                images += batch.size
                bar.update(batch.size)
                if self.state.step % CHECK_EVERY == 0:
                    mean = fmean(self._group.all_gather(loss.item()))
                    self._check_loss(mean)
                    bar.set_postfix(loss=f"{mean:.4f}")
                self._raise_if_stopped(stop)
        return images

    def _raise_if_stopped(self, stop: StopSignal, *, training: bool = True) -> None:
        """Save where a checkpoint is due; where a stop is asked for, save and stop. In all processes together."""
        # The main process alone saves. While the run is evaluated, its state stays as it was saved.
        due = training and self._group.is_main and self._checkpoint.age > 60 * self._params.checkpoint_minutes
        stop_now, save_now = map(any, zip(*self._group.all_gather((stop.received is not None, due)), strict=True))
        saved = self._save() if stop_now or save_now else True
        if stop_now:
            state = f"step {self.state.step} is saved; run the same command again to go on from there"
            raise self._group.for_all(Interrupted(state if saved else "NOT saved", stop.received or signal.SIGTERM))

    def _save(self) -> bool:
        """Save a checkpoint, or warn that it can't be done: training itself is not worth stopping for it."""
        state = self.state.state_dict()
        self._check_loss(math.fsum(loss for loss, *_ in state["totals"]))
        if self._group.is_main:
            try:
                self._checkpoint.save(self.state.step, state)
            except UserError as error:
                warning = f"warning: {error}; training goes on without this checkpoint"
                print_styled(warning, "yellow", sys.stderr)
                return False
        return True

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            if self._group.is_main:
                self._checkpoint.remove()  # to go on from it would end here again
            raise self._group.for_all(UserError(f"the loss is {loss} after step {self.state.step}; try a smaller lr"))

    def _plain_inputs(self, stop: StopSignal) -> Iterator[torch.Tensor]:
        for inputs in self._batches.plain():
            yield inputs
            self._raise_if_stopped(stop, training=False)

    def _evaluate(self, data: ImagesOnDevice, stop: StopSignal) -> Metrics:
        """Compute the mean loss and the accuracy on a set. Each process takes its shard of each batch."""
        means, group = MeanMetrics(self._machine.device), self._group
        count = math.ceil(len(data) / (self._form.batch_size * group.world_size))
        for batch in torch.arange(len(data)).tensor_split(count):
            images, labels = data.take(group.shard(batch))
            means.update(predict_logits(self.model, images, self._form, self._machine), labels)
            self._raise_if_stopped(stop, training=False)
        return means.compute(group)

    def _epoch_line(self, results: dict[str, Metrics], speed: Speed) -> str:
        parts = [f"{name} {metrics.loss:.4f} {metrics.accuracy:.2%}" for name, metrics in results.items()]
        took = f"{speed.images_per_second:,.0f} img/s, {speed.seconds:.0f} s"
        return f"{self._epoch_name(speed.epoch)}: {', '.join(parts)} ({took})"

    def _epoch_name(self, number: int) -> str:
        return f"epoch {min(number, self._params.epochs):g}/{self._params.epochs:g}"


class TrainingState:
    """The state of a run under way.

    Attributes:
        step: how many steps are done.
        history: for each finished epoch the metrics of each set, by its name.
        learning_rates: at the end of each of them.
        totals: the sums of the epoch under way, of this process's images.
    """

    def __init__(
        self, params: Params, model: nn.Module, total_steps: int, machine: Machine, group: ProcessGroup
    ) -> None:
        self._machine, self._group = machine, group
        self._label_smoothing, self._ema_decay = params.label_smoothing, params.ema_decay
        self._model = model.to(machine.device).to(memory_format=torch.channels_last)
        example = torch.zeros(1, 1, params.image_size, params.image_size, device=machine.device)
        self._parallel = group.parallel(self._model, example)
        self._averaged = AveragedModel(self._model) if self._ema_decay else None
        self._optimizer = build_optimizer(params, self._model)
        self._scheduler = build_schedule(params, self._optimizer, total_steps)
        self.step = 0
        self.history: list[dict[str, Metrics]] = []
        self.learning_rates: list[float] = []
        self.totals = MeanMetrics(machine.device)

    def training_step(self, batch: Batch) -> torch.Tensor:
        """Take one step on this process's shard of a batch; return its loss, on the device."""
        self._parallel.train()
        with self._machine.autocast():
            logits = self._parallel(batch.inputs)
        loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=self._label_smoothing)
        # The mean over all processes' losses with these weights is that over the whole batch; 1 for a single process.
        weight = len(batch.labels) * self._group.world_size / batch.size
        self._optimizer.zero_grad()
        (loss * weight).backward()
        self._optimizer.step()
        self._scheduler.step()
        if self._averaged:
            self._averaged.multi_avg_fn = get_ema_multi_avg_fn(average_decay(self._ema_decay, self.step))
            self._averaged.update_parameters(self._model)
        self.totals.update(logits, batch.labels)
        self.step += 1
        return loss

    def evaluated_model(self, plain_inputs: Iterable[torch.Tensor]) -> nn.Module:
        """Copy the model that is evaluated and saved, the same in all processes: the averaged one, if there is one.

        The copy of averaged weights gets batch normalisation statistics of its own. Averaged ones would be of earlier
        weights, and of warped images.

        Args:
            plain_inputs: this process's shards of the network's inputs (N, 1, S, S), of images that are not warped.
        """
        if not self._averaged:
            model = copy.deepcopy(self._model)
            self._group.broadcast_buffers(model)
            return model
        model = copy.deepcopy(self._averaged.module)
        with self._machine.autocast():
            update_bn(plain_inputs, model)
        self._group.average_buffers(model)
        return model

    def end_epoch(self, results: dict[str, Metrics]) -> None:
        """Enter an epoch's metrics into the history and start the sums anew."""
        self.history.append(results)
        self.learning_rates.append(float(self._scheduler.get_last_lr()[0]))
        self.totals = MeanMetrics(self._machine.device)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to go on to the bit. All processes must call it together."""
        return {
            "step": self.step,
            "history": [{name: tuple(metrics) for name, metrics in results.items()} for results in self.history],
            "learning_rates": list(self.learning_rates),
            "totals": self._group.all_gather(self.totals.totals.tolist()),
        } | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.step = state["step"]
        self.history = [{name: Metrics(*metrics) for name, metrics in results.items()} for results in state["history"]]
        self.learning_rates = state["learning_rates"]
        self.totals.totals.copy_(torch.tensor(state["totals"][self._group.rank], dtype=torch.float64))
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self._model, "optimizer": self._optimizer, "scheduler": self._scheduler}
        return parts | ({"averaged": self._averaged} if self._averaged else {})


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
