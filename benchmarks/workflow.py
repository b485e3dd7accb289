"""The workflow by DVC's commands: a first run, a repeated one, its memory, and the set-up."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

from benchmarks.copies import ENVIRONMENT, project_copy, run

SAMPLE = {"dataset": "sample", "weights": "random"}
DVC = (sys.executable, "-m", "dvc")
MIB = {"kB": 1e3 / 2**20, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20}
# The kernel counts a process's peak from the one that it was forked from: hence this small one in between.
PEAK_MEMORY = "import resource as r, subprocess as s, sys; s.run(sys.argv[1:]); print(r.getrusage(-1).ru_maxrss)"


def measure_workflow(common: Mapping[str, object]) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Measure the workflow on the data that lies here; yield each group of rows as it is done."""
    yield "dvc repro, seconds", repro(common)
    yield "train on the sample", {"peak memory, MiB": peak_memory(common)}


def repro(common: Mapping[str, object]) -> dict[str, float | None]:
    """Run the workflow with a training of a twentieth of an epoch and seed 0, and take what that took off."""
    with project_copy(common | {"weights": "random", "epochs": 0.05, "seed": 0}) as root:
        lines = list(run(root, *DVC, "repro"))
        starts = [(found[1], at) for at, line in lines if (found := re.match(r"Running stage '(\w+)'", line))]
        ends = [at for _, at in starts[1:]] + [lines[-1][0]]
        trained = sum(int(found[1]) for _, line in lines if (found := re.match(r"epoch .*, (\d+) s\)", line)))
        stages = {name: end - start for (name, start), end in zip(starts, ends, strict=True)}
        stages["train"] -= trained
        rows = {f"{name}{', its training left out' * (name == 'train')}": took for name, took in stages.items()}
        rows["all but the training"] = lines[-1][0] - trained
        again = {
            "with nothing to do": ("repro",),
            "another experiment, its training of a few steps included": ("exp", "run", "-S", "seed=1"),
            "the first run again, restored": ("exp", "run", "-S", "seed=0"),
        }
        for name, command in again.items():
            start = time.perf_counter()
            list(run(root, *DVC, *command))
            rows[name] = time.perf_counter() - start
    return rows


def peak_memory(common: Mapping[str, object]) -> float:
    """Measure the most memory that a training of an epoch held, in MiB."""
    with project_copy(common | SAMPLE | {"epochs": 1}) as root:
        *_, (_, line) = run(root, sys.executable, "-c", PEAK_MEMORY, sys.executable, "-m", "src.train")
    return float(line) / (2**20 if sys.platform == "darwin" else 2**10)


def measure_set_up() -> Iterator[tuple[str, dict[str, float | None]]]:
    """Install the requirements into an environment of their own, nothing cached."""
    with project_copy(SAMPLE) as root:
        start = time.perf_counter()
        python = root / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=root, check=True, env=ENVIRONMENT)
        pip = ("-m", "pip", "install", "--no-cache-dir", "--progress-bar", "off", "-r", "requirements.txt")
        printed = "".join(line for _, line in run(root, str(python), *pip))
        seconds = time.perf_counter() - start
        size = sum(file.lstat().st_size for file in (root / ".venv").rglob("*") if not file.is_dir())
    downloads = re.findall(r"Downloading .* \(([\d.]+) (kB|MB|GB)\)", printed)
    downloaded = sum(float(number) * MIB[unit] for number, unit in downloads)
    yield "set-up", {"seconds": seconds, "downloaded, MiB": downloaded, ".venv, MiB": size / 2**20}
