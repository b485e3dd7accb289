"""Kill it, starve it, feed it damaged files: the end is the undisturbed result or one clear line, and nothing is lost.

`make test` runs a quick selection, `make test-all` the full campaign; both print how often each fault was tried.
"""

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import faults
from helpers.data import write_data
from helpers.faults import FULL, READ_ONLY, contents, disturb, forget_all_but_download, heed_ctrl_c, leftovers
from helpers.project import Project, make_project, needs_posix, slow
from helpers.training import MACHINE, StopAt, small_model, small_params, small_sets
from torchvision.models import resnet18

from src.mnist.dataset import load_test_images
from src.mnist.dataset import Manifest, load_manifest
from src.pipeline.process import Interrupted, UserError
from src.pipeline.files import sha256
from src.resnet.model_file import encode_model, load_model
from src.resnet.network import build_model
from src.weights.state_dict import load_weights, read_weights
from src.train.checkpoint import Checkpoint
from src.train.processes import ProcessGroup
from src.train.signals import StopSignal
from src.train.trainer import TrainingState
from src.train.trainer import Trainer

pytestmark = needs_posix

TRAINED = ("models/model.safetensors", "models/run.json", "metrics/train")  # the results of the stage train
IMPORTED = 1_500  # modules, by each stage at least, after the first of ours
EPOCHS = 3  # of the full campaign, so that there are epochs' ends to be killed at


# Signals: a quick one of each kind to a training of one epoch


@pytest.fixture
def untrained(trained) -> Project:
    """A project whose data is there and nothing else yet."""
    forget_all_but_download(trained)
    return trained


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_from_its_checkpoint_to_the_same_bytes(untrained, trained_once, tries):
    tries("SIGKILL of the process group, then dvc repro", quick=1, full=1)
    untrained.set_params(checkpoint_minutes=1e-6)  # after each step
    disturb(
        untrained, "dvc", "repro", "train",
        mark="train: 3,800 images", wait=lambda: faults.wait_for_checkpoint(untrained), number=signal.SIGKILL,
    )  # fmt: skip
    left = contents(untrained.path, "models", "metrics")

    untrained.set_params(checkpoint_minutes=5)
    output = untrained.run("dvc", "repro", "train").stdout

    assert [name for name in left if not name.startswith("metrics/train/")] == []  # nothing was through
    assert re.search(r"train: going on from step \d+ of 15, where a run stopped", output)
    assert contents(untrained.path, *TRAINED) == contents(trained_once.path, *TRAINED)
    assert leftovers(untrained) == []


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_says_how_to_go_on(untrained, trained_once, tries):
    tries("SIGINT, then dvc repro", quick=1, full=1)
    interrupted = disturb(untrained, "dvc", "repro", "train", mark="train: 3,800 images", number=signal.SIGINT)

    output = untrained.run("dvc", "repro", "train").stdout

    saved = re.search(r"interrupted: step (\d+) is saved; run the same command again to go on from there", interrupted)
    assert "Traceback" not in interrupted
    assert f"train: going on from step {saved[1]} of 15" in output
    assert contents(untrained.path, *TRAINED) == contents(trained_once.path, *TRAINED)
    assert leftovers(untrained) == []


@pytest.mark.parametrize("stage", ["train", *map(slow, ("download", "evaluate", "report", "outliers", "export"))])
def test_ctrl_c_while_a_stage_imports_its_libraries_is_no_traceback_either(trained, tries, stage):
    chance = random.Random(stage)
    for _ in range(tries("SIGINT while a stage starts", quick=1, full=10)):
        process = subprocess.Popen(
            ["python", "-X", "importtime", "-m", f"src.{stage}"],  # a line for each module that it has imported
            cwd=trained.path, env=trained.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip
        for line in process.stderr:
            if line.endswith(" src.pipeline.process\n"):
                break  # what comes next is imported under `before_imports`
        for _ in range(chance.randint(1, IMPORTED)):
            process.stderr.readline()

        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()

        assert process.wait(timeout=60) != 0
        assert "interrupted" in errors
        assert "Traceback" not in errors


# Signals: the full campaign, to all stages of a run of several epochs


class Undisturbed(NamedTuple):
    """A clone where ``dvc repro`` ran to its end, and how long each stage took there."""

    project: Project
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def undisturbed(request, tmp_path_factory) -> Undisturbed:
    if not request.config.getoption("--all"):
        pytest.skip("takes long: part of `make test-all`")
    project = long_project(tmp_path_factory.mktemp("undisturbed"))
    return Undisturbed(project, faults.seconds_by_stage(project))


def long_project(path: Path) -> Project:
    """A clone where nothing has run, with parameters for several epochs."""
    project = make_project(path)
    project.set_params(epochs=EPOCHS)
    project.commit("several epochs")
    return project


def status(project: Project) -> str:
    """All that lies in a project and is not committed: its results, and what a fault left lying about."""
    return project.run("git", "status", "--porcelain", "--untracked-files=all").stdout


def check_whole(project: Project, undisturbed: Undisturbed) -> None:
    """Check what stands under a final name: it is whole, and the curves, which grow, are the first epochs'."""
    expected = contents(undisturbed.project.path, "data", "models", "metrics")
    found = contents(project.path, "data", "models", "metrics")
    for name, content in found.items():
        if name.endswith(".tsv"):
            assert expected[name].startswith(content), name
        elif name == "metrics/train/metrics.json":
            assert json.loads(content).get("step", 0) <= EPOCHS
        else:
            assert content == expected[name], name


def check_end(project: Project, undisturbed: Undisturbed) -> None:
    """Check that ``dvc repro`` goes on to the undisturbed end, and leaves nothing lying about."""
    project.run("dvc", "repro")
    assert project.read("dvc.lock") == undisturbed.project.read("dvc.lock")
    names = ("data", "models", "metrics")
    assert contents(project.path, *names) == contents(undisturbed.project.path, *names)
    assert status(project) == status(undisturbed.project)
    assert leftovers(project) == []


def test_after_a_sigkill_at_any_moment_the_next_run_ends_as_if_undisturbed(undisturbed, tmp_path, tries):
    chance = random.Random(0)
    total = tries("SIGKILL of the process group, then dvc repro", quick=0, full=32)
    kills = resumed = 0
    lasts = dict(undisturbed.seconds)  # how long each stage takes, as far as is known
    for number in range(2 * total):
        project = long_project(tmp_path / str(number))
        stages = ["download", "train", "train", "train", "evaluate", "report", "outliers", "export"]
        for stage in stages[: total - kills]:
            seconds = chance.uniform(0, lasts[stage])
            output = disturb(
                project, "dvc", "repro",
                mark=f"Running stage '{stage}'", wait=lambda: time.sleep(seconds), number=signal.SIGKILL,  # noqa: B023
            )  # fmt: skip
            if output is None:  # it was through: the machine is faster than it was, or has less to do
                lasts[stage] *= 0.7
            kills += output is not None
            resumed += "going on from step" in (output or "")
            check_whole(project, undisturbed)
        check_end(project, undisturbed)
        if kills == total:
            break

    assert kills == total
    assert resumed > 0  # some kill did fall between a checkpoint and the end


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGTERM to dvc alone"])
def test_a_signal_lets_the_batch_end_saves_and_says_how_to_go_on(undisturbed, tmp_path, tries, how):
    chance = random.Random(how)
    for attempt in range(tries(f"{how}, then dvc repro", quick=0, full=4)):
        seconds, output = chance.uniform(0, 1), None
        while output is None and seconds > 0.01:  # a faster machine has less time for it
            project = long_project(tmp_path / f"{attempt}, {seconds:.2f} s")
            output = disturb(
                project, "dvc", "repro",
                mark=f"epoch 1/{EPOCHS}:", wait=lambda: time.sleep(seconds), number=getattr(signal, how.split()[0]),  # noqa: B023
                group="alone" not in how,
            )  # fmt: skip
            seconds /= 3

        assert output, "training was through before the signal came"
        assert re.search(r"interrupted: step \d+ is saved; run the same command again to go on", output), output
        assert "Traceback" not in output
        check_whole(project, undisturbed)
        check_end(project, undisturbed)


# Within the training


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Checkpoint:
    """An empty checkpoint in a folder of its own."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return Checkpoint({})


def make_trainer(digits, checkpoint: Checkpoint, **params: object) -> Trainer:
    trainer = Trainer(small_params(**params), small_model(), small_sets(digits), MACHINE, ProcessGroup())
    trainer.resume(checkpoint)
    return trainer


@pytest.mark.parametrize(
    ("appears", "noticed"),
    [(1, 20), (20, 20), (21, 25)],  # at each 20th step, and at the end of the epoch, which has 25
)
def test_a_loss_that_is_no_number_is_noticed_within_twenty_steps(digits, checkpoint, monkeypatch, appears, noticed):
    take_step = TrainingState.training_step

    def take_poisoned_step(training: TrainingState, batch):
        if training.step == appears - 1:
            with torch.no_grad():
                next(training.evaluated_model.parameters()).fill_(float("nan"))
        return take_step(training, batch)

    monkeypatch.setattr(TrainingState, "training_step", take_poisoned_step)
    trainer = make_trainer(digits, checkpoint, batch_size=3, ema_decay=0.0)

    with pytest.raises(UserError, match=f"the loss is nan after step {noticed}; try a smaller lr"):
        trainer.run_epoch(StopAt())

    assert checkpoint.load() is None  # to go on from it would end here again


def test_ctrl_c_in_the_evaluation_stops_after_a_batch_and_loses_nothing(
    digits, checkpoint, monkeypatch, handlers_as_they_were
):
    from src.train import trainer as module

    predict, evaluated, trained = module.predict_logits, [], []
    take_step = TrainingState.training_step

    def predict_and_press_ctrl_c(model, images, *others):
        evaluated.append(len(images))
        if len(evaluated) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return predict(model, images, *others)

    def take_counted_step(training, batch):
        trained.append(batch.size)
        return take_step(training, batch)

    with pytest.MonkeyPatch.context() as apart:
        apart.setenv("DVC_ROOT", os.environ["DVC_ROOT"] + "/apart")
        undisturbed = make_trainer(digits, Checkpoint({})).run_epoch(StopAt())
    monkeypatch.setattr(module, "inference_batch_size", lambda _: 5)  # the 21 images of validation: five batches
    monkeypatch.setattr(module, "predict_logits", predict_and_press_ctrl_c)
    with StopSignal() as stop, pytest.raises(Interrupted, match="step 5 is saved"):
        make_trainer(digits, checkpoint).run_epoch(stop)
    at_the_signal = len(evaluated)

    monkeypatch.setattr(TrainingState, "training_step", take_counted_step)
    results = make_trainer(digits, checkpoint).run_epoch(StopAt())

    assert at_the_signal == 2
    assert trained == []
    assert results["train"] == undisturbed["train"]
    assert results["validation"].accuracy == undisturbed["validation"].accuracy
    assert results["validation"].loss == pytest.approx(undisturbed["validation"].loss, rel=1e-5)  # summed by batches


# Damaged files


@pytest.fixture
def few_images(in_project, digits) -> tuple[Project, torch.Tensor]:
    """A project with the data of a few images, and the test images among them."""
    write_data(in_project, digits, training=20, test=10)
    return in_project, load_test_images(load_manifest()).images


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_any_mutation_of_a_data_file_is_noticed(few_images, tries, mutations, name):
    file = Path("data/mnist/MNIST/raw", name)
    content, manifest = file.read_bytes(), load_manifest()
    for mutated in mutations(content, tries("data file mutated", quick=20, full=200)):
        file.write_bytes(mutated)

        with pytest.raises(UserError) as error:
            load_test_images(manifest)

        assert str(file) in str(error.value)
        assert "dvc repro -f download" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_a_missing_data_file_is_one_clear_line(few_images, tries, kind):
    tries("data file missing", quick=1, full=1)
    Path(f"data/mnist/MNIST/raw/t10k-{kind}-ubyte").unlink()

    with pytest.raises(UserError, match=f"t10k-{kind}-ubyte is not the file that data/manifest.json names"):
        load_test_images(load_manifest())


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_the_test_images_do_without_the_training_files(few_images, tries, kind):
    tries("data file missing", quick=1, full=1)
    _, images = few_images
    Path(f"data/mnist/MNIST/raw/train-{kind}-ubyte").unlink()

    assert torch.equal(load_test_images(load_manifest()).images, images)


def test_what_an_old_torchvision_would_have_prepared_is_not_taken_for_the_data(few_images):
    _, images = few_images
    folder = Path("data/mnist/MNIST/processed")
    folder.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)), folder / name)

    loaded = load_test_images(load_manifest()).images

    assert torch.equal(loaded, images)


def test_any_mutation_of_the_model_is_noticed(tmp_path, tries, mutations):
    content = encode_model(build_model(10), {"class_names": list("0123456789")})
    header = 8 + int.from_bytes(content[:8], "little")
    count = tries("model file mutated", quick=6, full=60)
    for first, last in ((0, header), (header, None)):
        for mutated in mutations(content, count // 2, first, last):
            (tmp_path / "model").write_bytes(mutated)

            try:
                load_model(tmp_path / "model")
            except UserError as error:
                assert "missing or damaged" in str(error)
                assert "\n" not in str(error)
            else:  # only metadata that is not needed to load it
                assert mutated[header:] == content[header:]


def test_any_mutation_of_the_weights_file_is_noticed(tmp_path, monkeypatch, tries, mutations):
    monkeypatch.chdir(tmp_path)
    file = Path("data/weights/resnet18.pth")
    file.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), file)
    content = file.read_bytes()
    manifest = Manifest(
        dataset="mnist", training_images=1, test_images=1, initial_weights="imagenet1k_v1", weights_file=file,
        sha256={file.as_posix(): sha256(file)},
    )  # fmt: skip
    manifest.check(file)
    model = build_model(10)
    for mutated in mutations(content, tries("weights file mutated", quick=6, full=60)):
        file.write_bytes(mutated)

        with pytest.raises(UserError, match="is not the file that"):
            manifest.check(file)

        try:  # and what would happen had the hash not told
            load_weights(model, read_weights(file), "sum")
        except UserError as error:
            assert "holds no ResNet-18 weights" in str(error)
            assert "\n" not in str(error)


# Outputs that can't be written


@pytest.fixture(scope="module")
def can_mount(tmp_path_factory) -> None:
    if not faults.can_mount(tmp_path_factory.mktemp("mount")):
        pytest.skip("needs the right to mount in a namespace of its own")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [FULL, READ_ONLY])
@pytest.mark.parametrize(
    ("stage", "folder", "named"),
    [
        ("download", "data/mnist", "data/mnist/MNIST/raw/train-images-idx3-ubyte"),
        ("download", "data/weights", "data/weights/README.txt"),
        ("download", "data", "data/"),
        ("train", "models", "models/model.safetensors"),
        ("train", "metrics", "metrics/train"),
        ("evaluate", "metrics/evaluate", "metrics/evaluate/"),
        ("report", "metrics/report", "metrics/report/"),
        ("report", "metrics", "metrics/report"),
        ("outliers", "models", "models/outliers.safetensors"),
        ("outliers", "metrics/outliers", "metrics/outliers/metrics.json"),
        ("export", "models", "models/model.onnx"),
        ("export", "metrics/export", "metrics/export/metrics.json"),
    ],
)
def test_an_output_that_cannot_be_written_is_a_clear_line_and_the_earlier_one_stays(
    trained, can_mount, tries, fails, stage, folder, named, fault
):
    tries(f"{fault} while writing an output", quick=1, full=1)
    if (stage, folder) == ("train", "metrics"):  # whose earlier curves dvclive removes, and so makes room for new ones
        for file in (trained.path / "metrics/train").rglob("*.*"):
            file.unlink()
        (trained.path / "metrics/train/metrics.json").write_text("")
    earlier = {path: file for path, file in contents(trained.path, folder).items() if "metrics/train/" not in path}

    done, left = faults.run_with_fault(trained, fault, folder, stage)

    fails(done, "can't write", named)
    found = {path: digest for path, digest in left.items() if "metrics/train/" not in path}
    for path in earlier:
        assert found.pop(path) == sha256(trained.path / path), path
    assert found == {}  # no part of a new one
