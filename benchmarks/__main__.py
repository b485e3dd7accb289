"""``make bench``: one table on the terminal, the same figures in ``benchmarks/results.json``.

Rows that compare two things run them in turns in this one process and give the ratio of the medians, so that they
hold on a noisy machine. Times to an accuracy are those of a fresh process each, its start included.
"""

import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import torch
import yaml
from torch import nn

from benchmarks import seed_recipe
from benchmarks.machine import processor_name
from benchmarks.recipes import RECIPES
from src.export import encode_onnx
from src.mnist.images import Images, load_test_images, load_training_images
from src.mnist.manifest import Manifest, load_manifest
from src.pipeline.errors import exit_on_user_error
from src.pipeline.files import write_json
from src.pipeline.machine import Machine, set_up_machine
from src.pipeline.params import Params, load_params
from src.resnet.inference import predict_logits
from src.resnet.model_file import model_metadata
from src.resnet.onnx_model import OnnxClassifier
from src.resnet.outliers import OutlierHead, logits_and_features
from src.resnet.trim import TrimmedConv2d, trim
from src.train.batches import Batches
from src.train.process_group import ProcessGroup
from src.train.training import Training, initial_model

RESULTS_FILE = Path("benchmarks/results.json")
SEED_SETTINGS = {
    "image_size": 224, "batch_size": 16, "lr": 0.001, "schedule": "constant", "augment": False, "ema_decay": 0.0,
    "validation_size": 0.0,
}  # fmt: skip
FASTEST = RECIPES["fastest"]
SAMPLE = {"dataset": "sample", "weights": "random"}
TARGET = 0.99  # test accuracy
FASTEST_SEEDS = (3, 4, 5)  # others than the recipe was chosen with


@exit_on_user_error
def main() -> None:
    params = load_params()
    machine = set_up_machine(params.device, params.precision, params.threads)
    manifest = load_manifest()
    train_set, test_set = load_training_images(manifest), load_test_images(manifest)
    results: dict[str, object] = {
        "machine": f"{processor_name()}, {machine}, torch {torch.__version__}",
        "dataset": manifest.dataset,
        "initial_weights": manifest.initial_weights,
    }
    for title, measure in {
        "seed recipe's work": lambda: seed_work(params, train_set, machine),
        "input pipeline": lambda: input_pipeline(params, train_set),
        "fraction of the machine": lambda: fraction_of_machine(params, train_set, machine),
        "inference": lambda: inference(params, test_set, machine),
        "scaling": lambda: scaling(params, train_set, machine),
    }.items():
        print(f"bench: {title} ...", flush=True)
        results[title] = measure()
    if manifest.dataset == "mnist":
        print("bench: time to 99% test accuracy ...", flush=True)
        rate = results["seed recipe's work"]["seed loop, images/s"]
        results["time to 99% test accuracy"] = time_to_target(60_000 / rate)
    else:
        print("bench: the time to 99% test accuracy needs the full MNIST, left out")
    write_json(RESULTS_FILE, results)
    print("\n".join(table(results)))


def table(results: dict) -> list[str]:
    """The results as a Markdown table."""
    lines = ["| what | figure |", "|---|---|"]
    for title, rows in results.items():
        if isinstance(rows, dict):
            lines += [f"| {title}: {name} | {_text(value)} |" for name, value in rows.items()]
    return lines


def seed_work(params: Params, data: Images, machine: Machine) -> dict[str, float]:
    """The seed recipe's training, the tutorial's way and ours, data pipeline included."""
    ours = params.model_copy(update=SEED_SETTINGS)
    rates = images_per_second(
        {"seed loop": seed_recipe.train(data, 224, machine.device), "ours": training_steps(ours, data, machine)},
        steps=2, rounds=7,
    )  # fmt: skip
    return rates | {"ratio": rates["ours, images/s"] / rates["seed loop, images/s"]}


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
    """One image at a time, by PyTorch on the machine and by onnxruntime on the CPU, in turns: the median of 200."""
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
    for image in data.images[:220].split(1):
        for name, answer in answers.items():
            start = time.perf_counter()
            answer(image)
            seconds[name].append(time.perf_counter() - start)
    return {f"batch 1, {name}, ms": 1000 * statistics.median(each[-200:]) for name, each in seconds.items()}


def scaling(params: Params, data: Images, machine: Machine) -> dict[str, float]:
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
        "peak memory of 1 epoch of 4,750 images, MiB": peak_memory(epochs=1),
        "peak memory of 6 epochs of them, MiB": peak_memory(epochs=6),
        "2 processes against 1, seconds an epoch of 4,000 images": processes_ratio(),
    }


def time_to_target(seed_epoch: float) -> dict[str, object]:
    """Seconds from the start of a process to the first epoch's end with `TARGET` on the test set."""
    fastest = [seconds_to_target(["-m", "src.train"], FASTEST | {"seed": seed}) for seed in FASTEST_SEEDS]
    ours = seconds_to_target(["-m", "src.train"], {})
    example = seconds_to_target(["-m", "benchmarks.mnist_example"], {})
    return {
        "fastest recipe, seconds, by seed": fastest,
        "default recipe, seconds": ours,
        "PyTorch's mnist example, seconds": example,
        "fastest against the example": statistics.median(fastest) / example if None not in fastest else None,
        "seed loop, seconds, its first epoch alone, extrapolated from its rate": seed_epoch,
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
    training = Training(params, model, round(params.epochs * len(batches)), machine, ProcessGroup())
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


def peak_memory(epochs: int) -> float:
    """The most memory that ``train`` holds on the sample, MiB, in a process of its own."""
    command = ["-m", "benchmarks.peak_memory", sys.executable, "-m", "src.train"]
    *_, (_, line) = run_stage(command, SAMPLE | {"epochs": epochs}, sample=True)
    return float(line.split()[-2])


def processes_ratio() -> float | None:
    """The time of the sample's second epoch with two processes on this machine against that with one."""
    seconds = []
    for launcher in (["-m"], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]):
        lines = run_stage([*launcher, "src.train"], SAMPLE | {"epochs": 2}, sample=True)
        seconds.append([at for at, line in lines if line.startswith("epoch ")])
    return (seconds[1][1] - seconds[1][0]) / (seconds[0][1] - seconds[0][0])


def seconds_to_target(command: list[str], overrides: dict) -> float | None:
    """When a command's epoch line first says `TARGET` on the test set, in seconds; None where it never does."""
    return next(
        (
            at
            for at, line in run_stage(command, overrides)
            if (found := re.search(r"^epoch.* test (?:loss [\d.]+ )?accuracy ([\d.]+)%", line))
            and float(found[1]) >= 100 * TARGET
        ),
        None,
    )


def run_stage(command: list[str], overrides: dict, *, sample: bool = False) -> Iterator[tuple[float, str]]:
    """Run Python in a copy of the project and yield its lines with the seconds since its start; kill it at the end."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("src", "benchmarks", "data"):
            shutil.copytree(name, root / name)
        params = yaml.safe_load(Path("params.yaml").read_text()) | overrides
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        (root / ".dvc").mkdir()
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        first_commit = "-c user.name=bench -c user.email=bench@example.com commit --quiet --allow-empty -m start"
        setup = [["git", "init", "--quiet"], ["git", *first_commit.split()]]  # dvclive wants a commit
        if sample:
            setup.append([sys.executable, "-m", "src.download"])
        for words in setup:
            subprocess.run(words, cwd=root, check=True, capture_output=True, env=environment)
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, *command], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stdout:
                    yield time.perf_counter() - start, line
            finally:
                process.kill()


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return "not reached" if value is None else str(value)


if __name__ == "__main__":
    main()
