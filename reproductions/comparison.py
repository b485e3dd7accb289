"""Whether two runs are the same: three verdicts, and how much rounding may change.

*The same bytes*: each output has the committed hash. *The same to rounding*: training gave another model, as it does on
another kind of machine, and no figure differs by more than its tolerance. *Different*: all else.
"""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import recipes, seeds
from src.pipeline.params import load_params
from src.pipeline.paths import MODEL_FILE, REPORT_FILE, RUN_FILE

ROOT = Path(__file__).resolve().parent.parent
SAME, ROUNDING, DIFFERENT = "the same bytes", "the same to rounding", "different"
MODEL = MODEL_FILE.as_posix()
SELF_DESCRIPTION = {RUN_FILE.as_posix(), REPORT_FILE.as_posix()}  # name the run's versions and parameters
METRICS = ("loss", "accuracy")  # of the last epoch
SAMPLE_TOLERANCE = {  # of seeds 1 to 3 each differs by at least twice as much in loss, predictions and logits
    "loss": 0.01,
    "accuracy": 0.02,
    "predictions": 0.1,
    "logits": 1.4,
    "source": "twice the largest difference of one thread, SSE4.1 and bf16 from two threads, AVX2 and fp32, rounded up",
}


def compare(committed: Mapping[str, Any], found: Mapping[str, Any], tolerance: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two runs.

    Args:
        committed: what `verify.summarise` gives of the one, with ``used`` (its models/run.json) and ``logits``.
        found: the same of the other.
        tolerance: by how much rounding may change a figure; ``source``, where that is known from.

    Returns:
        ``verdict``; ``differing``, stage and path of each output with another hash, in the order of the stages, but of
        `SELF_DESCRIPTION` where something in ``other`` explains it;
        ``differences``, the largest of each figure, or None; ``tolerance``; ``other``, both values of each parameter,
        version and part of the hardware that differs.
    """
    other = {
        name: [committed[part].get(name), value]
        for part in ("parameters", "used")
        for name, value in found[part].items()
        if committed[part].get(name) != value
    }
    outs = [(stage, path, md5) for stage, hashes in committed["md5"].items() for path, md5 in hashes.items()]
    now = [found["md5"].get(stage, {}).get(path) for stage, path, _ in outs]
    differing = [
        (stage, path)
        for (stage, path, md5), new in zip(outs, now, strict=True)
        if new != md5 and not (other and path in SELF_DESCRIPTION)
    ]
    differences = {name: difference(name, committed, found) for name in (*METRICS, "predictions", "logits")}

    if not differing:
        verdict = SAME
    elif (
        None not in now
        and differing[0][0] == "train"  # what `download` gets is the same everywhere
        and ("train", MODEL) in differing  # the figures of one model do not differ by its training's rounding
        and all(value is not None and value <= tolerance.get(name, value) for name, value in differences.items())
    ):
        verdict = ROUNDING
    else:
        verdict = DIFFERENT
    figures = {"differences": differences, "tolerance": dict(tolerance)}
    return {"verdict": verdict, "differing": differing, **figures, "other": other}


def difference(name: str, committed: Mapping[str, Any], found: Mapping[str, Any]) -> float | None:
    """Find the largest absolute difference; of predictions the share that differs; None where they do not pair up."""
    old, new = (np.array(run[name]) for run in (committed, found))
    if old.shape != new.shape:
        return None
    return round(float((old != new).mean() if name == "predictions" else np.abs(old - new).max()), 6)


def whole_tolerance() -> dict[str, Any]:
    """Take as much as three standard deviations of the difference of two seeds: an upper bound, not a measurement."""
    runs = seeds.by_kind(recipes.load_runs(ROOT / seeds.RESULTS_FILE), load_params(ROOT / "params.yaml"))
    groups = [group for (recipe, *_), group in runs.items() if recipe == "default" and len(group) > 1]
    metrics = {"loss": "validation_loss", "accuracy": "test_accuracy"}
    spread = {
        name: max((statistics.stdev(run[metric] for run in group) for group in groups), default=0)
        for name, metric in metrics.items()
    }
    tolerance = {name: round(3 * math.sqrt(2) * value, 6) for name, value in spread.items()}
    return tolerance | {"source": "three standard deviations of the difference of two seeds, benchmarks/seeds.json"}
