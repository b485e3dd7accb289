"""Rates in one process: training, batches, arithmetic, inference, and how they grow.

What is compared is run in turns, and the medians are compared, so that a ratio holds on a noisy machine.
"""

import math
import statistics
import time
from collections.abc import Iterator
from itertools import count, islice

import torch
from torch import nn

from benchmarks import seed_recipe
from src.reader.export.translation import encode_onnx
from src.mnist.dataset import Images, load_test_images, load_training_images
from src.mnist.dataset import Manifest
from src.resnet.machine import Machine, set_up_machine
from src.pipeline.params import Params
from src.resnet.inference import predict_logits
from src.resnet.model_file import model_metadata
from src.reader.export.onnx_classifier import OnnxClassifier
from src.reader.head.outlier_head import OutlierHead, logits_and_features
from src.resnet.network import TrimmedConv2d, trim
from src.train.batches import Batches
from src.train.stage import initial_model
from src.train.processes import ProcessGroup
from src.train.trainer import TrainingState

SEED_SETTINGS = {
    "image_size": 224, "batch_size": 16, "lr": 0.001, "schedule": "constant", "augment": False, "ema_decay": 0.0,
    "validation_size": 0.0,
}  # fmt: skip


def measure_rates(params: Params, manifest: Manifest) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure each group of rows; yield its title with it as it is done."""
    machine = set_up_machine(params.device, params.precision, params.threads)
    train_set, test_set = load_training_images(manifest), load_test_images(manifest)
    yield "the seed recipe at 224 px", seed_work(params, train_set, machine)
    yield "training with the defaults", training_at_three_sizes(params, train_set, machine)
    yield "input pipeline", input_pipeline(params, train_set)
    yield "fraction of the machine", fraction_of_machine(params, train_set, machine)
    yield "inference", inference(params, test_set, machine)
    yield "growth", growth(params, train_set, machine)


def seed_work(params: Params, data: Images, machine: Machine) -> dict[str, float]:
    """The seed recipe, by the tutorial's loop and by ours, data pipeline included."""
    seed = params.model_copy(update=SEED_SETTINGS)
    in_fp32 = machine._replace(dtype=torch.float32)
    contestants = {
        "tutorial's loop, fp32": seed_recipe.train(data, 224, machine.device),
        "ours, fp32": training_steps(seed, data, in_fp32),
    }
    if machine.dtype != torch.float32:
        contestants["ours, its default"] = training_steps(seed, data, machine)
    rates = images_per_second(contestants, steps=2, rounds=7)
    theirs, *ours = rates.values()
    ratios = {"fp32 against fp32, ratio": ours[0] / theirs, "each at its default, ratio": ours[-1] / theirs}
    return rates | ratios | {"tutorial's loop, seconds for 60,000 images, extrapolated": 60_000 / theirs}


def training_at_three_sizes(params: Params, data: Images, machine: Machine) -> dict[str, float]:
    """The default recipe, with more pixels as well."""
    sizes = {
        f"{size} px": training_steps(params.model_copy(update={"image_size": size}), data, machine)
        for size in (28, 56, 224)
    }
    return images_per_second(sizes, steps=1, rounds=3)


def input_pipeline(params: Params, data: Images) -> dict[str, float]:
    """Batches alone, no training: per-image transforms against ours, without augmentation."""
    results = {}
    for image_size, batch_size, steps in ((28, 128, 8), (224, 16, 12)):
        ours = params.model_copy(update={"image_size": image_size, "batch_size": batch_size, "augment": False})
        rates = images_per_second(
            {
                f"per image at {image_size} px": (
                    len(labels) for _ in count() for _, labels in seed_recipe.batches(data, image_size, batch_size)
                ),
                f"ours at {image_size} px": (
                    batch.size for epoch in count() for batch in Batches(data, ours, ProcessGroup()).epoch(epoch)
                ),
            },
            steps=steps, rounds=7,
        )  # fmt: skip
        theirs, mine = rates.values()
        results |= rates | {f"ratio at {image_size} px": mine / theirs}
    return results


def fraction_of_machine(params: Params, data: Images, machine: Machine) -> dict[str, float]:
    """The default recipe's useful arithmetic against the best matrix product in the same precision."""
    per_image = useful_flops(trim(random_model(params), params.image_size), params.image_size)
    steps, best, rates = training_steps(params, data, machine), 0.0, []
    next(steps)
    for _ in range(15):
        start = time.perf_counter()
        images = sum(islice(steps, 3))
        rates.append(images / (time.perf_counter() - start))
        for side in (1024, 2048, 4096):
            best = max(best, matrix_product_rate(side, machine))
    rate = statistics.median(rates) * per_image
    return {
        "useful GFLOP per image and step": per_image / 1e9,
        "training, useful GFLOP/s": rate / 1e9,
        "best matrix product, GFLOP/s": best / 1e9,
        "fraction": rate / best,
    }


def inference(params: Params, data: Images, machine: Machine) -> dict[str, float]:
    """The path of `evaluate` at batch 1 and at the best batch, images per second."""
    model = trim(random_model(params), params.image_size)
    model = model.to(machine.device, memory_format=torch.channels_last).eval()

    def rate(batch: int) -> float:
        rates = []
        for _ in range(5):
            images = data.images[: max(batch, 50)].to(machine.device)
            start = time.perf_counter()
            for part in images.split(batch):
                predict_logits(model, part, params.image_size, machine).sum().item()
            rates.append(len(images) / (time.perf_counter() - start))
        return statistics.median(rates)

    rates = {batch: rate(batch) for batch in (10, 100, 500, 1000)}
    best = max(rates, key=rates.__getitem__)
    one = milliseconds_an_image(params, data, machine)
    return one | {"best batch": best, "best batch, images/s": rates[best]}


def milliseconds_an_image(params: Params, data: Images, machine: Machine) -> dict[str, float]:
    """One image at a time, by PyTorch on the machine and by onnxruntime on the CPU: medians of 200.

    In turns of 20 images: for a while after an answer, onnxruntime's threads wait by spinning.
    """
    model, metadata = random_model(params).eval(), model_metadata(params.image_size)
    head = OutlierHead(logits_and_features(model, torch.zeros(1, 1, params.image_size, params.image_size))[1].shape[1])
    onnx = OnnxClassifier(encode_onnx(model, head.eval(), metadata))
    trimmed = trim(model, params.image_size).to(machine.device, memory_format=torch.channels_last).eval()
    answers = {
        "PyTorch": lambda image: predict_logits(
            trimmed, image.to(machine.device), params.image_size, machine
        ).sum().item(),
        "onnxruntime": onnx.answers,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in answers}
    for turn in data.images[:220].split(20):
        for name, answer in answers.items():
            for image in turn.split(1):
                start = time.perf_counter()
                answer(image)
                seconds[name].append(time.perf_counter() - start)
    return {f"batch 1, {name}, ms": 1000 * statistics.median(each[-200:]) for name, each in seconds.items()}


def growth(params: Params, data: Images, machine: Machine) -> dict[str, float]:
    """How the cost grows: 1 would be in proportion to the images, and to the pixels."""

    def seconds(images: int, image_size: int) -> float:
        part = Images(data.images[:images], data.labels[:images])
        steps = training_steps(params.model_copy(update={"image_size": image_size, "epochs": 1}), part, machine)
        next(steps)
        start = time.perf_counter()
        done = sum(steps)
        return (time.perf_counter() - start) / done

    cost = {
        (images, size): statistics.median(seconds(images, size) for _ in range(3))
        for images, size in ((1024, 28), (4096, 28), (1024, 56), (1024, 112))
    }
    return {
        "4 times the images, cost per image": cost[4096, 28] / cost[1024, 28],
        "56 against 28 px, cost per pixel": cost[1024, 56] / cost[1024, 28] / 4,
        "112 against 56 px, cost per pixel": cost[1024, 112] / cost[1024, 56] / 4,
    }


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


def training_steps(params: Params, data: Images, machine: Machine) -> Iterator[int]:
    """Our training, all epochs; yield the number of images after each step, done."""
    batches = Batches(data.to(machine.device), params, ProcessGroup())
    model = trim(random_model(params), params.image_size)
    training = TrainingState(params, model, round(params.epochs * len(batches)), machine, ProcessGroup())
    for epoch in range(math.ceil(params.epochs)):
        for batch in batches.epoch(epoch):
            training.training_step(batch).item()
            yield batch.size


def random_model(params: Params) -> nn.Module:
    """ResNet-18 with random weights, whatever the manifest names."""
    weights = {"initial_weights": "random", "weights_file": None, "sha256": {}}
    return initial_model(params, Manifest(dataset="mnist", training_images=1, test_images=1, **weights))


def useful_flops(model: nn.Module, image_size: int) -> float:
    """Operations of a forward and backward pass for one image, products with padding left out.

    A backward pass does twice the forward's, but the first layer needs no gradient of its input.
    """
    forward = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            forward.append(2 * module.weight.numel())
        elif isinstance(module, TrimmedConv2d):  # each pair of positions once, no padding
            channels = module.weight.shape[0] * module.weight.shape[1]
            forward.append(2 * channels * (module.side * module.side_out) ** 2)
        else:
            kernel, stride, padding = module.kernel_size[0], module.stride[0], module.padding[0]
            side, side_out = inputs[0].shape[-1], output.shape[-1]
            pairs = sum(0 <= o * stride + k - padding < side for o in range(side_out) for k in range(kernel))
            forward.append(2 * module.in_channels * module.out_channels * pairs**2)

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | TrimmedConv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 1, image_size, image_size))
    for hook in hooks:
        hook.remove()
    return 3 * sum(forward) - forward[0]


def matrix_product_rate(side: int, machine: Machine) -> float:
    """Operations per second of a product of two square matrices, the best of five."""
    a, b = torch.randn(2, side, side, device=machine.device).to(machine.dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
