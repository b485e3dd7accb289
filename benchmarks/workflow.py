"""What the workflow takes besides the training: its stages, a run with nothing to do, a repeated one, the set-up."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

from benchmarks.copies import ENVIRONMENT, project_copy, run, run_module

SAMPLE = {"dataset": "sample", "weights": "random"}
DVC = (sys.executable, "-m", "dvc")
RESTORED = "the first run again, restored"
MIB = {"kB": 1e3 / 2**20, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20}


def measure_workflow(common: Mapping[str, object]) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Measure the workflow on the data that lies here; yield each group of rows as it is done."""
    yield "dvc repro, seconds", repro(common)
    yield "train on the sample", train_on_sample(common)


def repro(common: Mapping[str, object]) -> dict[str, float | None]:
    """Run the workflow with a training of a twentieth of an epoch and seed 0, and take what that took off."""
    with project_copy(common | {"weights": "random", "epochs": 0.05, "seed": 0}) as root:
        lines = list(run(root, *DVC, "repro"))
        starts = [(found[1], at) for at, line in lines if (found := re.match(r"Running stage '(\w+)'", line))]
        ends = [at for _, at in starts[1:]] + [lines[-1][0]]
        trained = sum(int(found[1]) for _, line in lines if (found := re.match(r"epoch .*, (\d+) s\)", line)))
        stages = {name: end - start for (name, start), end in zip(starts, ends, strict=True)}
        stages["train"] -= trained
        again = {
            "with nothing to do": ("repro",),
            "an experiment of 0.05 epochs": ("exp", "run", "-S", "seed=1"),
            RESTORED: ("exp", "run", "-S", "seed=0"),
        }
        rows = {f"{name}{', its training left out' * (name == 'train')}": took for name, took in stages.items()}
        rows["all but the training"] = lines[-1][0] - trained
        for name, command in again.items():
            start = time.perf_counter()
            output = [line for _, line in run(root, *DVC, *command)]
            rows[name] = time.perf_counter() - start
            assert name != RESTORED or any("'train' is cached" in line for line in output)
    return rows


def train_on_sample(common: Mapping[str, object]) -> dict[str, float | None]:
    """Memory for one epoch and for six, and what a second process on the same cores does."""

    def peak_memory(epochs: int) -> float:
        with project_copy(common | SAMPLE | {"epochs": epochs}) as root:
            *_, (_, line) = run_module(root, ["benchmarks.peak_memory", sys.executable, "-m", "src.train"])
        return float(line.split()[-2])

    def second_epoch(*launcher: str) -> float:
        with project_copy(common | SAMPLE | {"epochs": 2}) as root:
            lines = run_module(root, [*launcher, "src.train"])
            first, second = [at for at, line in lines if line.startswith("epoch ")]
        return second - first

    two = second_epoch("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    return {
        "peak memory of 1 epoch, MiB": peak_memory(1),
        "peak memory of 6 epochs, MiB": peak_memory(6),
        "2 processes against 1, time of an epoch": two / second_epoch(),
    }


def measure_set_up() -> Iterator[tuple[str, dict[str, float | None]]]:
    """Install the requirements into an environment of their own, nothing cached."""
    with project_copy(SAMPLE) as root:
        start = time.perf_counter()
        python = root / ".venv/bin/python" if sys.platform != "win32" else root / ".venv/Scripts/python.exe"
        subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=root, check=True, env=ENVIRONMENT)
        pip = ("-m", "pip", "install", "--no-cache-dir", "--progress-bar", "off", "-r", "requirements.txt")
        printed = "".join(line for _, line in run(root, str(python), *pip))
        seconds = time.perf_counter() - start
        size = sum(file.lstat().st_size for file in (root / ".venv").rglob("*") if not file.is_dir())
    downloads = re.findall(r"Downloading .* \(([\d.]+) (kB|MB|GB)\)", printed)
    yield (
        "set-up",
        {
            "seconds": seconds,
            "downloaded, MiB": sum(float(number) * MIB[unit] for number, unit in downloads),
            ".venv, MiB": size / 2**20,
        },
    )
