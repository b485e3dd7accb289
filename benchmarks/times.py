"""``python -m benchmarks.times``: how long a training with the defaults takes here, with bf16 and without.

Each is a whole run of `train` in a copy of the project, its start included. What is measured is written to
``benchmarks/times.json``; what another kind of machine measured stays there. It wants the full MNIST in ``data``.
"""

import json
from pathlib import Path

import torch

from benchmarks.__main__ import run_stage
from benchmarks.machine import processor_name
from src.pipeline.files import write_json
from src.pipeline.machine import set_up_machine

RESULTS_FILE = Path("benchmarks/times.json")
PRECISIONS = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def main() -> None:
    runs = json.loads(RESULTS_FILE.read_text(encoding="utf-8"))["runs"] if RESULTS_FILE.exists() else []
    kinds = {(machine := set_up_machine("auto", precision, 0)).dtype: machine for precision in ("auto", "fp32")}
    for machine in kinds.values():  # one, where there is no bf16
        place = {"processor": processor_name(), **machine.describe()}
        *lines, (seconds, _) = run_stage(["-m", "src.train"], {"precision": PRECISIONS[machine.dtype]})
        epochs = sum(line.startswith("epoch ") for _, line in lines)
        runs = [run for run in runs if place.items() - run.items()]
        runs.append({**place, "epochs": epochs, "seconds": round(seconds)})
        write_json(RESULTS_FILE, {"runs": runs})


if __name__ == "__main__":
    main()
