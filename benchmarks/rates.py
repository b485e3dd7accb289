"""Rates in one process: training by ours and by the tutorial's loop.

What is compared is run in turns, and the medians are compared, so that a ratio holds on a noisy machine.
"""

import math
import statistics
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain, count, islice

import torch

from benchmarks import tutorial
from src.images.dataset import Images, Manifest, load_images
from src.pipeline.params import Params
from src.resnet.inference import InputFormat
from src.resnet.machine import Machine, set_up_machine
from src.resnet.network import build_model, trim
from src.train.batches import Batches, ImagesOnDevice
from src.train.processes import ProcessGroup
from src.train.trainer import TrainingState


def measure_rates(params: Params, manifest: Manifest) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure each group of rows; yield its title with it as it is done."""
    machine = set_up_machine(params.device, params.precision, params.threads)
    data, form = load_images(manifest, "train"), partial(InputFormat, mean=manifest.mean, std=manifest.std)
    settings = params.model_copy(update=tutorial.SETTINGS)
    contestants = {
        "the tutorial's loop, fp32": tutorial.train(data, 224, machine.device),
        "ours, fp32": training_steps(settings, form(224), data, machine._replace(dtype=torch.float32)),
    }
    if machine.dtype != torch.float32:
        contestants["ours, its default precision"] = training_steps(settings, form(224), data, machine)
    yield "the tutorial recipe at 224 px", images_per_second(contestants, steps=2, rounds=7)
    sizes = {
        f"{size} px": training_steps(params.model_copy(update={"image_size": size}), form(size), data, machine)
        for size in (28, 32, 224)
    }
    yield "training with the defaults", images_per_second(sizes, steps=1, rounds=3)


def images_per_second(contestants: dict[str, Iterator[int]], *, steps: int, rounds: int) -> dict[str, float]:
    """Let each take ``steps`` in turns, ``rounds`` times after one to warm up; the median rate of each."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            images = sum(islice(contestant, steps))
            if round_:
                rates[name].append(images / (time.perf_counter() - start))
    return {f"{name}, images/s": statistics.median(values) for name, values in rates.items()}


def training_steps(params: Params, form: InputFormat, data: Images, machine: Machine) -> Iterator[int]:
    """Train by ours, all epochs; yield the number of images after each step, done."""
    steps = round(params.epochs * math.ceil(len(data.labels) / params.batch_size))
    model = trim(build_model(params.network, data.labels.max() + 1), params.image_size)
    training = TrainingState(params, model, steps, machine, ProcessGroup())
    batches = Batches(ImagesOnDevice(data, machine.device), params, form, ProcessGroup())
    for batch in islice(chain.from_iterable(map(batches.epoch, count())), steps):
        training.training_step(batch).item()
        yield batch.size
