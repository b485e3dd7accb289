"""Stage ``train``: fine-tune ResNet-18 on MNIST, or what ``params.yaml`` names, and record each epoch."""

import platform

import torch
import torchvision
from torch import nn

from src.images.dataset import Manifest, load_manifest
from src.pipeline.files import write_file, write_json, write_table
from src.pipeline.params import Params, load_params
from src.pipeline.paths import MODEL_FILE, RUN_FILE, SPEED_FILE, TRAIN_METRICS_DIR
from src.pipeline.process import require_unchanged_inputs
from src.pipeline.project import project_root
from src.resnet.inference import InputFormat
from src.resnet.machine import Machine, set_up_machine
from src.resnet.model_file import encode_model, model_metadata
from src.resnet.network import build_model, trim, untrim
from src.sampling.seeding import derive_seed
from src.sampling.split import load_sets
from src.train.checkpoint import Checkpoint, run_identity
from src.train.live import log_epoch, log_run, open_live, require_own_curves
from src.train.processes import process_group
from src.train.signals import StopSignal
from src.train.trainer import Trainer
from src.weights.state_dict import load_weights, read_weights


def main() -> None:
    params, manifest = load_params(), load_manifest()
    machine = set_up_machine(params.device, params.precision, params.threads)
    with StopSignal() as stop, process_group(machine.device) as group:
        # Load the images and the initial weights.
        sets = load_sets(manifest, params.validation_size)
        untrimmed = initial_model(params, manifest)

        # Build what trains them, and go on where an earlier run of the same stopped.
        checkpoint = Checkpoint(run_identity(params, manifest, machine, group))
        form = InputFormat(params.image_size, manifest.mean, manifest.std)
        trainer = Trainer(params, form, trim(untrimmed, params.image_size), sets, machine, group, checkpoint)
        machines = " and ".join(dict.fromkeys(group.all_gather(str(machine))))
        trainer.say(
            f"train: {len(sets['train'].labels):,} images, {manifest.initial_weights} initial weights, "
            f"{params.epochs:g} epoch{'s' * (params.epochs > 1)}, {trainer.total_steps} steps"
        )
        trainer.say(f"train: on {machines}")
        if "validation" in sets:
            by = {"writer": "all images of some writers", "class": "the same share of each class"}
            held_out = len(sets["validation"].labels)
            trainer.say(f"train: held out for validation are {held_out:,} images, {by[manifest.validation_split]}")
        trainer.say("train: loss and accuracy after each epoch:")
        trainer.resume()

        # Train epoch by epoch, the curves written as it goes.
        with open_live(writes=group.is_main) as live:
            for results, rate in zip(trainer.state.history, trainer.state.learning_rates, strict=True):
                log_epoch(live, results, rate)
            while not trainer.done:
                log_epoch(live, trainer.run_epoch(stop), trainer.state.learning_rates[-1])
                if group.is_main:
                    write_table(project_root() / SPEED_FILE, [speed._asdict() for speed in trainer.speeds])
            log_run(
                live,
                training_images=len(sets["train"].labels),
                dataset=manifest.dataset,
                initial_weights=manifest.initial_weights,
            )

        # Save the model, and what the run used.
        if group.is_main:
            require_unchanged_inputs()
            require_own_curves(trainer.state.history)
            model = untrim(trainer.model, untrimmed)
            write_file(MODEL_FILE, encode_model(model, model_metadata(params.network, manifest.class_names, form)))
            write_json(RUN_FILE, describe_run(params.network, manifest, machine, group.world_size))
            checkpoint.remove()
        trainer.say(f"train: the model is in {MODEL_FILE}, its metrics in {TRAIN_METRICS_DIR}")


def initial_model(params: Params, manifest: Manifest) -> nn.Module:
    """Build the network as training starts it: from the manifest's weights, and for the rest from the seed alone.

    Raises:
        UserError: the weights' file is not the downloaded one, or not of this network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(params.seed, "model"))
        model = build_model(params.network, len(manifest.class_names))
    if manifest.weights_file:
        manifest.check(manifest.weights_file)
        load_weights(model, read_weights(manifest.weights_file, params.network), params.conv1_init)
    return model


def describe_run(network: str, manifest: Manifest, machine: Machine, processes: int) -> dict[str, str | int]:
    """Say what the run used, where ``params.yaml`` says only what it was asked for."""
    weights = manifest.weights_file
    return {
        **machine.describe(),
        "processes": processes,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "network": network,
        "dataset": manifest.dataset,
        "test_split": manifest.test_split,
        "validation_split": manifest.validation_split,
        "initial_weights": manifest.initial_weights,
        "initial_weights_sha256": manifest.sha256[weights.as_posix()] if weights else "none",
    }
