"""``make verify``: repeat the committed run in a clone of its own, compare, and write a record of it."""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml

from benchmarks.machine import machine_name, processor_name, short_name
from reproductions.comparison import DIFFERENT, METRICS, SAMPLE_TOLERANCE, compare, whole_tolerance
from src.images.dataset import load_images, load_manifest
from src.pipeline import paths
from src.pipeline.files import read_columns, read_json, write_file, write_json
from src.pipeline.params import load_params
from src.pipeline.process import Interrupted, UserError
from src.resnet.inference import InputFormat, predict_logits
from src.resnet.machine import set_up_machine
from src.resnet.model_file import load_model

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
SAMPLE = {"dataset": "sample", "weights": "random", "epochs": 2, "lr": 0.0001}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reproductions", description="repeat the committed run")
    parser.add_argument("--full", action="store_true", help="the whole run; without this, the one on the sample")
    parser.add_argument("--threads", type=int, help="another number of them: sums in another order")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="another one")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the clone there, with its dvc.lock and cache")
    renew = "write what later runs are compared with: a new run on the sample; with --full, the results that are here"
    parser.add_argument("--write-reference", action="store_true", help=renew)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the clone goes then too

    # Repeat the run.
    run, start = "whole" if options.full else "sample", time.monotonic()
    reference = FOLDER / f"{run}.json"
    if options.full and options.write_reference:
        write_reference(reference, ("model_md5", "used", "logits"))  # Git has the others
        return
    machine = {name: getattr(options, name) for name in ("threads", "precision") if getattr(options, name)}
    with clone_of(ROOT, options.keep) as clone, contextlib.chdir(clone):
        committed = {} if options.write_reference else read_json(reference)
        committed |= summarise() if options.full else {}
        repeat(machine if options.full else SAMPLE | machine)
        if options.write_reference:
            write_reference(reference, ("parameters", "md5", *METRICS, "predictions", "model_md5", "used", "logits"))
            return
        found = summarise() | summarise_model()

    # Say whether it is the same, and write that down.
    record = {
        "run": run,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "by": git(ROOT, "config", "--default", "", "user.name"),
        "commit": git(ROOT, "rev-parse", "HEAD"),
        "machine": machine_name(found["used"]),
        "system": f"{platform.system()} {platform.machine()}",
        "used": found["used"],
        "minutes": round((time.monotonic() - start) / 60, 1),
        "model_md5": found["model_md5"],
        **compare(committed, found, whole_tolerance() if options.full else SAMPLE_TOLERANCE),
    }
    processor = processor_name() if found["used"]["device"] == "cpu" else found["used"]["device"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{processor} {found['used']['instructions']} {record['date']}".lower())
    write_json(FOLDER / f"{name}.json", record)
    print("\n".join(sentences(record)))
    print(f"verify: a pull request with {FOLDER.name}/{name}.json adds this to docs/reproducibility.md")
    sys.exit(record["verdict"] == DIFFERENT)


@contextlib.contextmanager
def clone_of(root: Path, keep: Path | None) -> Iterator[Path]:
    """Clone what is committed, with a DVC cache of its own: nothing is restored instead of computed.

    The files that ``download`` got come with it; that stage compares them with known hashes.

    Args:
        root: of the project, which may be a folder of a larger repository.
        keep: where the clone stays; None for a temporary folder.
    """
    repository, folder = git(root, "rev-parse", "--show-toplevel"), git(root, "rev-parse", "--show-prefix")
    if git(root, "status", "--porcelain", "--", "."):
        print("verify: what is not committed is left out")
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="mnist-resnet-", ignore_cleanup_errors=True)
        target = keep.resolve() if keep else Path(stack.enter_context(temporary))
        git(root, "clone", "--quiet", repository, str(target))
        clone = target / folder
        (clone / ".dvc/config.local").write_text("[cache]\n    dir = cache\n", encoding="utf-8")
        for downloads in (paths.IMAGES_DIR, paths.WEIGHTS_DIR):
            if (root / downloads).is_dir():
                shutil.copytree(root / downloads, clone / downloads)
        yield clone


def repeat(parameters: Mapping[str, object]) -> None:
    """Run each stage in the working folder, with some parameters changed, whatever dvc.lock says."""
    if parameters:
        with modify_yaml("params.yaml") as values:
            values.update(parameters)
    for stage in yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]:
        run_stage(stage)


def run_stage(name: str) -> None:
    """Have DVC run a stage, which prints what it prints. Raises `UserError` where it fails."""
    command = [sys.executable, "-m", "dvc", "repro", "--quiet", "--force", "--single-item", name]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.Popen(command, env=os.environ | {"PATH": path}, start_new_session=True)
    try:
        failed = process.wait()
    except KeyboardInterrupt:
        if os.name == "posix":  # elsewhere Ctrl-C reached it
            os.killpg(process.pid, signal.SIGINT)
        process.wait()  # until nothing more is written into the clone
        raise Interrupted("the next `make verify` begins anew", signal.SIGINT) from None
    if failed:
        raise UserError(f"stage {name} failed; its own error stands above")


def summarise() -> dict[str, Any]:
    """Gather of the run in the working folder its parameters, the hash of each output, and figures.

    The hash of an output that is in Git is the file's, whatever dvc.lock says.
    """
    with Repo() as repo:
        outs = {stage.addressing: stage.outs for stage in repo.stage.load_all("dvc.yaml")}
        md5 = {
            stage: {out.def_path: (out.hash_info if out.use_cache else out.get_hash()).value for out in outs[stage]}
            for stage in outs
        }
    lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    curves = {
        metric: [
            value
            for name in paths.SETS
            for value in read_columns(paths.TRAIN_CURVES_DIR / name / f"{metric}.tsv", {metric: float})[metric][-1:]
        ]
        for metric in METRICS
    }
    return {
        "parameters": lock["stages"]["report"]["params"]["params.yaml"],
        "md5": md5,
        **curves,
        "predictions": read_columns(paths.PREDICTIONS_FILE, {"predicted": int})["predicted"],
    }


def summarise_model() -> dict[str, Any]:
    """Gather what Git has of no run: what it used, and its model's logits of the first 100 test images, in fp32."""
    params = load_params()
    machine = set_up_machine(params.device, "fp32", params.threads)
    model, metadata = load_model(paths.MODEL_FILE)
    images = torch.from_numpy(load_images(load_manifest(), "test").images[:100])
    logits = predict_logits(model.to(machine.device), images, InputFormat.of_model(metadata), machine)
    with paths.MODEL_FILE.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    rounded = [[round(value, 4) for value in row] for row in logits.tolist()]
    return {"model_md5": md5, "used": read_json(paths.RUN_FILE), "logits": rounded}


def write_reference(file: Path, names: Sequence[str]) -> None:
    """Write down of the run in the working folder what later ones are compared with, a line for each name."""
    values = summarise() | summarise_model()
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(values[name])}" for name in names)
    write_file(file, f"{{\n{text}\n}}\n".encode())
    print(f"verify: wrote {file.relative_to(ROOT)}")


def sentences(record: Mapping[str, Any]) -> Iterator[str]:
    """Say in a few lines what a record says."""
    yield f"verify: {record['verdict']}, on {short_name(record['machine'])}, in {record['minutes']:.1f} min"
    for stage, path in record["differing"][:1]:
        yield f"  first to differ: {path}, of {stage}; {len(record['differing'])} outputs differ"
        for name, value in record["differences"].items():
            yield f"  {name}: largest difference {value}, tolerance {record['tolerance'].get(name, 'unknown')}"
        yield f"  tolerance: {record['tolerance']['source']}"
    for name, (old, new) in record["other"].items():
        yield f"  {name}: {old} in the committed run, {new} here"


def git(folder: Path, *arguments: str) -> str:
    """Run Git. Raises `UserError` with its last line where it fails."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or [f"git {arguments[0]} failed"])[-1])
    return done.stdout.strip()
