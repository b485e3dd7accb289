"""``python -m benchmarks.side_by_side``: a training alone and two at once, by how long OpenMP's threads spin.

While a thread of libgomp waits for work it spins, ``GOMP_SPINCOUNT`` times, before it sleeps. A second training then
waits for processors that do nothing. For each value two processes train all the while, in turns: one of them, then
both. The bytes of a training do not depend on the value. It takes 4 minutes on two cores, which should have nothing
else to do; the rows go to ``benchmarks/results.json``.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.bench import save_rows
from benchmarks.rates import training_steps
from src.images.dataset import SIDE, Images
from src.pipeline.params import load_params
from src.resnet.inference import InputFormat
from src.resnet.machine import set_up_machine

UNSET = "unset"
SPIN_COUNTS = (UNSET, "1000", "2000", "3000", "5000", "10000")
ROUNDS, ALONE_SECONDS, TWO_SECONDS = 7, 3.0, 2.0
TITLE = "two trainings at once, images/s: one alone, each of two, the ratio"


def main() -> None:
    pairs = {value: start_two(value) for value in SPIN_COUNTS}
    alone: dict[str, list[float]] = {value: [] for value in SPIN_COUNTS}
    each_of_two: dict[str, list[float]] = {value: [] for value in SPIN_COUNTS}
    for round_ in range(ROUNDS):
        for value, pair in pairs.items():
            alone[value] += take_turn(pair[round_ % 2 :][:1], ALONE_SECONDS)
            each_of_two[value] += take_turn(pair, TWO_SECONDS)
    rows = {}
    for value in SPIN_COUNTS:
        one, two = statistics.median(alone[value]), statistics.median(each_of_two[value])
        rows[f"GOMP_SPINCOUNT {value}"] = {"alone": one, "each of two": two, "ratio": two / one}
        print(f"{value:>6}: alone {one:,.0f} images/s, each of two {two:,.0f}, a ratio of {two / one:.2f}")
    params = load_params()
    save_rows(set_up_machine(params.device, params.precision, params.threads), TITLE, rows)


def start_two(value: str) -> list[subprocess.Popen]:
    """Start two processes that train when they are told to. OpenMP reads its variables as PyTorch is loaded."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    environment |= {} if value == UNSET else {"GOMP_SPINCOUNT": value}
    command, pipe = [sys.executable, "-m", "benchmarks.side_by_side", "train"], subprocess.PIPE
    pair = [subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in pair:
        process.stdout.readline()  # it is ready
    return pair


def take_turn(processes: Sequence[subprocess.Popen], seconds: float) -> list[float]:
    """Let some train at once for so long; return the images per second of each."""
    for process in processes:
        print(seconds, file=process.stdin, flush=True)
    return [float(process.stdout.readline()) for process in processes]


def train() -> None:
    """Train for as many seconds as each line of the input says, and print the images per second."""
    params, random = load_params(), np.random.default_rng(0)
    machine = set_up_machine(params.device, params.precision, params.threads)
    data = Images(random.integers(256, size=(60_000, SIDE, SIDE), dtype=np.uint8), random.integers(10, size=60_000))
    steps = training_steps(params, InputFormat(params.image_size, 0.5, 0.3), data, machine)
    next(steps)
    print("ready", flush=True)
    for line in sys.stdin:
        began, images, end = time.perf_counter(), 0, time.perf_counter() + float(line)
        while time.perf_counter() < end:
            images += next(steps)
        print(images / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    train() if sys.argv[1:] == ["train"] else main()
