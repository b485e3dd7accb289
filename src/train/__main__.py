"""Stage ``train``: fine-tune ResNet-18 on MNIST, and record loss and accuracy of each epoch."""

import contextlib
import math
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from dvclive import Live
from scmrepo.exceptions import SCMError
from tqdm import tqdm

from src.mnist.images import (
    CLASS_NAMES,
    MEAN,
    STD,
    Images,
    load_test_images,
    load_training_images,
    split_validation,
)
from src.mnist.manifest import Manifest, check_file, load_manifest
from src.pipeline.errors import Interrupted, UserError, exit_on_user_error
from src.pipeline.files import atomic_write, replace_folder, sha256
from src.pipeline.machine import Machine, set_up_machine
from src.pipeline.params import Params, load_params
from src.pipeline.results import MODEL_FILE, TRAIN_METRICS_DIR
from src.resnet.model_file import encode_model
from src.resnet.trim import restore, trim
from src.train.batches import steps_per_epoch, training_batches
from src.train.checkpoint import Checkpoint
from src.train.distributed import Processes, join
from src.train.interruption import Interruption
from src.train.metrics import Metrics, evaluate
from src.train.training import Training, initial_model

UNFINISHED_METRICS_DIR = Path("metrics/.train")  # what dvclive writes to until the run succeeds
BAR_STEPS = 20  # the progress bar reads the loss, and so waits for the device, once in this many steps


@exit_on_user_error
def main() -> None:
    params = load_params()
    manifest = load_manifest()
    machine = set_up_machine(params.device, params.precision, params.threads)
    with Interruption() as interruption, join(machine.device) as processes:
        train_set, validation_set = split_validation(load_training_images(manifest), params.validation_size)
        sets = {"validation": validation_set, "test": load_test_images(manifest)}
        sets = {name: data.to(machine.device) for name, data in sets.items() if data is not None}
        shares = {name: Images(*map(processes.share, data)) for name, data in sets.items()}
        train_set = train_set.to(machine.device)

        if manifest.weights_file:
            check_file(manifest, manifest.weights_file)
        untrimmed = initial_model(params, manifest.weights_file)
        steps = steps_per_epoch(len(train_set.labels), params.batch_size)
        model = trim(untrimmed, params.image_size)
        training = Training(params, model, steps * params.epochs, machine, processes)
        checkpoint = Checkpoint(identity(params, manifest, machine, processes))
        say = print if processes.is_first else lambda _: None
        say(
            f"train: {len(train_set.labels):,} images, {manifest.initial_weights} initial weights, "
            f"{params.epochs} epochs of {steps} steps on {machine}"
        )
        if state := processes.from_first(checkpoint.load() if processes.is_first else None):
            training.restore(state)
            say(f"train: going on from step {training.step} of {steps * params.epochs}, where an earlier run stopped")

        with open_live(processes) as live:
            for results in training.history:
                log_epoch(live, results)
            for epoch in range(len(training.history), params.epochs):
                start, images = time.perf_counter(), training.tally.images
                train_epoch(training, train_set, epoch, params, processes, checkpoint, interruption)
                rate = (training.tally.images - images) * processes.count / (time.perf_counter() - start)
                results = {"train": training.tally.metrics(processes)}
                for name, share in shares.items():
                    results[name] = evaluate(training.kept, share, params.image_size, machine, processes)
                if not math.isfinite(results["train"].loss):
                    checkpoint.remove()
                    raise UserError(f"the loss is {results['train'].loss} after epoch {epoch + 1}; try a smaller lr")
                training.end_epoch(results)
                save(training, checkpoint, processes)
                say(epoch_line(epoch, params.epochs, results, rate, time.perf_counter() - start))
                log_epoch(live, results)
            if live:
                live.log_metric("training_images", len(train_set.labels), plot=False)
                live.log_metric("initial_weights", manifest.initial_weights, plot=False)

        if processes.is_first:
            with atomic_write(MODEL_FILE) as file:
                file.write(encode_model(restore(untrimmed, training.kept), metadata(params)))
            replace_folder(UNFINISHED_METRICS_DIR, TRAIN_METRICS_DIR)
            checkpoint.remove()
        say(f"train: the model is in {MODEL_FILE}, its metrics in {TRAIN_METRICS_DIR}")


def train_epoch(
    training: Training,
    data: Images,
    epoch: int,
    params: Params,
    processes: Processes,
    checkpoint: Checkpoint,
    interruption: Interruption,
) -> None:
    """Train to the end of ``epoch``, from wherever in it ``training`` stands.

    Raises:
        Interrupted: a signal came; the state is saved.
    """
    images = len(data.labels)
    first = training.step - epoch * steps_per_epoch(images, params.batch_size)
    with tqdm(
        desc=f"epoch {epoch + 1}/{params.epochs}",
        total=images,
        initial=training.tally.images * processes.count,
        unit=" images",
        disable=None if processes.is_first else True,
        leave=False,
    ) as bar:
        for inputs, labels, batch_size in training_batches(data, params, epoch, first, processes):
            loss = training.learn(inputs, labels, batch_size)
            bar.update(batch_size)
            if not bar.disable and training.step % BAR_STEPS == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
            stop, due = processes.any(interruption.signal is not None, checkpoint.age > 60 * params.checkpoint_minutes)
            if stop or due:
                saved = save(training, checkpoint, processes)
                if stop:
                    state = f"step {training.step} is saved; run the same command again to go on from there"
                    raise Interrupted(state if saved else "NOT saved", interruption.signal or signal.SIGTERM)


def save(training: Training, checkpoint: Checkpoint, processes: Processes) -> bool:
    """Save a checkpoint, or warn that it can't be done: training itself is not worth stopping for it."""
    state = training.state()
    if processes.is_first:
        try:
            checkpoint.save(training.step, state)
        except UserError as error:
            print(f"warning: {error}; training goes on without this checkpoint", file=sys.stderr)
            return False
    return True


def identity(params: Params, manifest: Manifest, machine: Machine, processes: Processes) -> dict[str, Any]:
    """All that the result depends on: a checkpoint is for the run that has the same."""
    modules = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("src.")}
    sources = {name: Path(file) for name, file in modules.items() if file}
    return {
        "params": params.model_dump(exclude={"checkpoint_minutes", "launcher"}),
        "data and weights": manifest.sha256,
        "code": {name: sha256(path) for name, path in (sources | {"src.train": Path(__file__)}).items()},
        "libraries": [torch.__version__, torchvision.__version__],
        "machine": [str(machine), torch.backends.cpu.get_cpu_capability()],
        "processes": processes.count,
    }


@contextlib.contextmanager
def open_live(processes: Processes) -> Iterator[Live | None]:
    """A dvclive logger in the first process, None in the others. It starts `UNFINISHED_METRICS_DIR` anew.

    Raises:
        UserError: the files can't be written, or the Git repository has no commit yet, without which dvclive can't
            start.
    """
    if not processes.is_first:
        yield None
        return
    shutil.rmtree(UNFINISHED_METRICS_DIR, ignore_errors=True)
    try:
        # Reports, dvc.yaml and experiments are DVC's here.
        with Live(str(UNFINISHED_METRICS_DIR), report=None, save_dvc_exp=False, dvcyaml=False) as live:
            yield live
    except SCMError as error:
        raise UserError(f"{error}: dvclive needs a first commit; run `git add -A && git commit -m start`") from error
    except OSError as error:
        raise UserError(f"can't write {UNFINISHED_METRICS_DIR}: {error.strerror or error}") from error


def log_epoch(live: Live | None, results: dict[str, Metrics]) -> None:
    """Hand one epoch's metrics to dvclive."""
    if live is None:
        return
    for name, metrics in results.items():
        live.log_metric(f"{name}/loss", metrics.loss)
        live.log_metric(f"{name}/accuracy", metrics.accuracy)
    live.next_step()


def epoch_line(epoch: int, epochs: int, results: dict[str, Metrics], rate: float, seconds: float) -> str:
    """One epoch's line for the terminal. Its times are in no output."""
    parts = [f"{name} loss {metrics.loss:.4f} accuracy {metrics.accuracy:.2%}" for name, metrics in results.items()]
    return f"epoch {epoch + 1}/{epochs}: {', '.join(parts)} ({rate:,.0f} images/s, {seconds:.0f} s)"


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
