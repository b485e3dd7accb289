"""Stage ``train``: fine-tune ResNet-18 on MNIST, and record loss and accuracy of each epoch."""

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from dvclive import Live
from scmrepo.exceptions import SCMError
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from src.dataset import (
    CLASS_NAMES,
    MEAN,
    SIDE,
    STD,
    Images,
    check_file,
    load_manifest,
    load_test_images,
    load_training_images,
    split_validation,
)
from src.engine import Machine, Metrics, Tally, evaluate, set_up_machine
from src.errors import UserError, exit_on_user_error
from src.files import atomic_write
from src.model import MODEL_FILE, build_model, encode_model, load_imagenet_weights
from src.params import Params, load_params
from src.seeding import derived_seed, generator
from src.transforms import random_affine, to_input

METRICS_DIR = Path("metrics/train")
BAR_STEPS = 20  # the progress bar reads the loss, and so waits for the device, once in this many steps


@exit_on_user_error
def main() -> None:
    params = load_params()
    manifest = load_manifest()
    machine = set_up_machine(params.device, params.precision)
    train_set, validation_set = split_validation(load_training_images(manifest), params.validation_size)
    sets = {"validation": validation_set, "test": load_test_images(manifest)}
    sets = {name: data.to(machine.device) for name, data in sets.items() if data is not None}
    train_set = train_set.to(machine.device)

    if manifest.weights_file:
        check_file(manifest, manifest.weights_file)
    model = initial_model(params, manifest.weights_file)
    model = model.to(machine.device, memory_format=torch.channels_last)
    averaged = None
    if params.ema_decay:
        averaged = AveragedModel(model, use_buffers=True)
    kept = averaged.module if averaged else model
    optimizer = build_optimizer(params, model)
    steps = steps_per_epoch(len(train_set.labels), params.batch_size)
    scheduler = build_schedule(params, optimizer, steps * params.epochs)
    print(
        f"train: {len(train_set.labels):,} images, {manifest.initial_weights} initial weights, "
        f"{params.epochs} epochs of {steps} steps on {machine}"
    )

    with open_live(METRICS_DIR) as live:
        for epoch in range(params.epochs):
            start = time.perf_counter()
            tally = Tally(machine.device)
            model.train()
            batches = training_batches(train_set, params, epoch)
            with tqdm(
                desc=f"epoch {epoch + 1}/{params.epochs}",
                total=len(train_set.labels),
                unit=" images",
                disable=None,
                leave=False,
            ) as bar:
                for step, (inputs, labels) in enumerate(batches):
                    with machine.autocast():
                        logits = model(inputs)
                    loss = F.cross_entropy(logits.float(), labels, label_smoothing=params.label_smoothing)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    scheduler.step()
                    if averaged:
                        decay = average_decay(params.ema_decay, epoch * steps + step)
                        averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
                        averaged.update_parameters(model)
                    tally.add(logits, labels)
                    bar.update(len(labels))
                    if not bar.disable and step % BAR_STEPS == 0:
                        bar.set_postfix(loss=f"{loss.item():.4f}")
            results = {"train": tally.metrics()}
            rate = tally.images / (time.perf_counter() - start)
            results |= {name: evaluate(kept, data, params.image_size, machine) for name, data in sets.items()}
            if not math.isfinite(results["train"].loss):
                raise UserError(f"the loss is {results['train'].loss} after epoch {epoch + 1}; try a smaller lr")
            report(epoch, params.epochs, results, rate, time.perf_counter() - start)
            for name, metrics in results.items():
                live.log_metric(f"{name}/loss", metrics.loss)
                live.log_metric(f"{name}/accuracy", metrics.accuracy)
            live.log_metric("training_images", len(train_set.labels), plot=False)
            live.log_metric("initial_weights", manifest.initial_weights, plot=False)
            live.next_step()

    with atomic_write(MODEL_FILE) as file:
        file.write(encode_model(kept, metadata(params)))
    print(f"train: the model is in {MODEL_FILE}, its metrics in {METRICS_DIR}")


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


def steps_per_epoch(images: int, batch_size: int) -> int:
    return math.ceil(images / batch_size)


def training_batches(data: Images, params: Params, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch's batches: each image once, in an order and with a warp that are functions of (seed, epoch, step).

    The batches' sizes differ by one image at most, so that none is too small for batch normalisation.

    Yields:
        inputs (N, 1, S, S) float32 in channels_last, labels (N,) int64.
    """
    count = len(data.labels)
    order = torch.randperm(count, generator=generator(params.seed, "order", epoch))
    for step, indices in enumerate(order.tensor_split(steps_per_epoch(count, params.batch_size))):
        indices = indices.to(data.images.device, non_blocking=True)
        theta = None
        if params.augment:
            theta = random_affine(
                len(indices),
                side=SIDE,
                max_rotation=params.max_rotation,
                max_shift=params.max_shift,
                max_scaling=params.max_scaling,
                generator=generator(params.seed, "augment", epoch, step),
            ).to(data.images.device, non_blocking=True)
        inputs = to_input(data.images[indices], params.image_size, theta)
        yield inputs.contiguous(memory_format=torch.channels_last), data.labels[indices].long()


def open_live(directory: Path) -> Live:
    """A dvclive logger that starts ``directory`` anew and leaves dvc.yaml, experiments and reports to DVC.

    Raises:
        UserError: the Git repository has no commit yet, without which dvclive can't start.
    """
    shutil.rmtree(directory, ignore_errors=True)
    try:
        return Live(str(directory), report=None, save_dvc_exp=False, dvcyaml=False)
    except SCMError as error:
        raise UserError(f"{error}: dvclive needs a first commit; run `git add -A && git commit -m start`") from error


def report(epoch: int, epochs: int, results: dict[str, Metrics], rate: float, seconds: float) -> None:
    """Print one epoch's line. Its times are for the terminal only: they are in no output."""
    parts = [f"{name} loss {metrics.loss:.4f} accuracy {metrics.accuracy:.2%}" for name, metrics in results.items()]
    print(f"epoch {epoch + 1}/{epochs}: {', '.join(parts)} ({rate:,.0f} images/s, {seconds:.0f} s)", flush=True)


def metadata(params: Params) -> dict[str, object]:
    """What somebody needs who has only the model's file."""
    return {
        "architecture": "resnet18",
        "class_names": CLASS_NAMES,
        "image_size": params.image_size,
        "mean": MEAN,
        "std": STD,
    }


if __name__ == "__main__":
    main()
