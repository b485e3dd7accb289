"""One training run: its images, its state, its checkpoint, and the processes that share it."""

import math
import signal
import sys
import time
from itertools import islice

import torch
from torch import nn
from tqdm import tqdm

from src.mnist.images import Images
from src.pipeline.errors import Interrupted, UserError
from src.pipeline.machine import Machine
from src.pipeline.params import Params
from src.resnet.inference import inference_batch_size, predict_logits
from src.resnet.metrics import MeanMetrics, Metrics, mean_metrics
from src.train.batches import Batches
from src.train.checkpoint import Checkpoint
from src.train.process_group import ProcessGroup
from src.train.signals import StopSignal
from src.train.state import TrainingState

LOOK_STEPS = 20  # the loss is looked at, and so the device waited for, once in this many steps


class Trainer:
    """Trains a model epoch by epoch, saves its state as it goes, and stops in good order when asked to.

    Args:
        params: of the run.
        model: as training starts it.
        sets: the images of ``train``, of ``test``, and of ``validation`` if there are any.
        machine: to train on.
        group: the processes that train together.
    """

    def __init__(
        self, params: Params, model: nn.Module, sets: dict[str, Images], machine: Machine, group: ProcessGroup
    ) -> None:
        self._params, self._machine, self._group = params, machine, group
        sets = {name: data.to(machine.device) for name, data in sets.items()}
        self._batches = Batches(sets.pop("train"), params, group)
        self._shards = {name: Images(*map(group.shard, data)) for name, data in sets.items()}
        self.total_steps = max(1, round(params.epochs * len(self._batches)))
        self._state = TrainingState(params, model, self.total_steps, machine, group)

    @property
    def done(self) -> bool:
        """Whether all epochs are through. The last one may be a part of one."""
        return len(self.history) * len(self._batches) >= self.total_steps

    @property
    def history(self) -> list[dict[str, Metrics]]:
        """For each finished epoch the metrics of each set, by its name."""
        return self._state.history

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and saved."""
        return self._state.evaluated_model

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from ``checkpoint``, if it holds anything, and keep it up to date from now on."""
        self._checkpoint = checkpoint
        state = self._group.broadcast(checkpoint.load() if self._group.is_main else None)
        if state:
            self._state.load_state_dict(state)
            self.say(f"train: going on from step {self._state.step} of {self.total_steps}, where a run stopped")

    def run_epoch(self, stop: StopSignal) -> dict[str, Metrics]:
        """Train to the end of the epoch, from wherever in it the run stands, and evaluate.

        Raises:
            Interrupted: ``stop`` came; the state is saved.
            UserError: the loss is no number any more.
        """
        start = time.perf_counter()
        rate = self._train(stop) / (time.perf_counter() - start)
        self._save()  # before the evaluation, which a signal then costs nothing
        results = {"train": mean_metrics(self._group.all_gather(self._state.totals.totals).sum(0))}
        results |= {name: self._evaluate(shard, stop) for name, shard in self._shards.items()}
        for metrics in results.values():
            self._check_loss(metrics.loss)
        self._state.end_epoch(results)
        self.say(self._epoch_line(results, rate, time.perf_counter() - start))
        return results

    def say(self, line: str) -> None:
        """Print a line, in the main process alone."""
        if self._group.is_main:
            print(line)

    def _train(self, stop: StopSignal) -> int:
        """Take the epoch's steps that are left; return the number of images that they took."""
        epoch, images = len(self.history), 0
        first_step = self._state.step - epoch * len(self._batches)
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
                loss = self._state.training_step(batch)
                images += batch.size
                bar.update(batch.size)
                if self._state.step % LOOK_STEPS == 0:
                    self._check_loss(loss.item())
                    bar.set_postfix(loss=f"{loss.item():.4f}")
                self._heed(stop)
        return images

    def _heed(self, stop: StopSignal, *, training: bool = True) -> None:
        """Save where a checkpoint is due; where a stop is asked for, save and stop. In all processes together."""
        # The main process alone saves. While the run is evaluated, its state stays as it was saved.
        due = training and self._group.is_main and self._checkpoint.age > 60 * self._params.checkpoint_minutes
        stop_now, save_now = self._group.all_reduce_any(stop.received is not None, due)
        saved = self._save() if stop_now or save_now else True
        if stop_now:
            state = f"step {self._state.step} is saved; run the same command again to go on from there"
            raise Interrupted(state if saved else "NOT saved", stop.received or signal.SIGTERM)

    def _save(self) -> bool:
        """Save a checkpoint, or warn that it can't be done: training itself is not worth stopping for it."""
        state = self._state.state_dict()
        self._check_loss(state["totals"].sum(0)[0].item())
        if self._group.is_main:
            try:
                self._checkpoint.save(self._state.step, state)
            except UserError as error:
                print(f"warning: {error}; training goes on without this checkpoint", file=sys.stderr)
                return False
        return True

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            self._checkpoint.remove()  # to go on from it would end here again
            raise UserError(f"the loss is {loss} after step {self._state.step}; try a smaller lr")

    def _evaluate(self, shard: Images, stop: StopSignal) -> Metrics:
        """Compute the mean loss and the accuracy on the set of which each process holds a shard."""
        means = MeanMetrics(self._machine.device)
        most = int(self._group.all_gather(torch.tensor([len(shard.labels)])).max())
        # The same number of batches for all, so that they stop together.
        count = math.ceil(most / inference_batch_size(self._params.image_size))
        for images, labels in zip(shard.images.tensor_split(count), shard.labels.tensor_split(count), strict=True):
            logits = predict_logits(self.evaluated_model, images, self._params.image_size, self._machine)
            means.update(logits, labels)
            self._heed(stop, training=False)
        return mean_metrics(self._group.all_gather(means.totals).sum(0))

    def _epoch_line(self, results: dict[str, Metrics], rate: float, seconds: float) -> str:
        parts = [f"{name} loss {metrics.loss:.4f} accuracy {metrics.accuracy:.2%}" for name, metrics in results.items()]
        return f"{self._epoch_name(len(self.history))}: {', '.join(parts)} ({rate:,.0f} images/s, {seconds:.0f} s)"

    def _epoch_name(self, number: int) -> str:
        return f"epoch {min(number, self._params.epochs):g}/{self._params.epochs:g}"
