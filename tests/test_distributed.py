"""Several processes train as one does."""

import json
import math
import os
import re
import signal

import psutil
import pytest
import torch
from helpers.processes import compute_in_float64, run_processes
from helpers.project import slow
from helpers.training import FROM_RANDOM_WEIGHTS, MACHINE, StopAt, small_model, small_params, small_sets
from torch.multiprocessing import ProcessRaisedException

from src.pipeline.process import UserError
from src.resnet.network import trim
from src.train.batches import Batches
from src.train.checkpoint import Checkpoint
from src.train.processes import ProcessGroup, process_group
from src.train.stage import initial_model
from src.train.trainer import Trainer, TrainingState

TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m"
ROUNDING = 1e-9  # in float64, whose own is 1e-16: of sums over a batch in another order, through 18 layers


def step_of_resnet(group, images, labels):
    """In one of several processes: the gradients, and the statistics, that ResNet-18's first step leaves."""
    compute_in_float64()
    params = small_params(batch_size=7, ema_decay=0.0, label_smoothing=0.1)
    model = trim(initial_model(params, FROM_RANDOM_WEIGHTS), params.image_size)
    training = TrainingState(params, model, 10, MACHINE, group)
    batches = Batches(torch.from_numpy(images), torch.from_numpy(labels), params, group)
    training.training_step(next(batches.epoch(0)))
    model = training.evaluated_model
    return {name: parameter.grad for name, parameter in model.named_parameters()} | dict(model.named_buffers())


@pytest.mark.parametrize("count", [2, slow(3)])
def test_a_step_of_several_processes_leaves_the_gradients_and_statistics_of_one_on_the_whole_batch(
    digits, tmp_path, count
):
    images, labels = small_sets(digits)["train"]
    seven = images[:7], labels[:7]  # which no number of processes shares equally
    (one,) = run_processes(1, tmp_path, step_of_resnet, *seven)

    by_rank = run_processes(count, tmp_path, step_of_resnet, *seven)

    assert one["fc.weight"].dtype == torch.float64
    for found in by_rank:
        assert list(found) == list(one)
        for name, expected in one.items():
            assert (found[name] - expected).abs().max() <= ROUNDING * expected.abs().max(), name


def talk(group):
    """In one of two processes: what it hears from the other, and the error where they differ."""
    error = None
    group.require_same({"seed": 0})
    try:
        group.require_same({"seed": group.rank, "lr": 0.1} | ({"torch": "3.0"} if group.is_main else {}))
    except UserError as raised:
        error = str(raised)
    return {
        "gathered": group.all_gather(torch.tensor([group.rank, 5.0])).tolist(),
        "any": group.all_reduce_any(group.rank == 1, False),
        "broadcast": group.broadcast({"from": group.rank}),
        "error": error,
    }


def test_processes_hear_the_same_and_one_alone_hears_itself(tmp_path):
    first, second = run_processes(2, tmp_path, talk)

    assert first == second
    assert re.search(r"process 1 .* seed, torch$", first.pop("error"))
    assert first == {"gathered": [[0, 5], [1, 5]], "any": [True, False], "broadcast": {"from": 0}}
    alone = {"gathered": [[0, 5]], "any": [False, False], "broadcast": {"from": 0}, "error": None}
    assert talk(ProcessGroup()) == alone


def test_shards_are_all_rows_in_order_and_differ_by_one_row_at_most():
    shards = [ProcessGroup(rank, 3).shard(torch.arange(7)).tolist() for rank in range(3)]

    assert shards == [[0, 1, 2], [3, 4], [5, 6]]


def epoch(group, sets, folder, poisoned):
    """In one of several processes: an epoch's metrics, or the error by which it ended. In one, weights may be NaN."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(folder))
        checkpoint = Checkpoint({"poisoned": poisoned})
        trainer = Trainer(small_params(ema_decay=0.0), small_model(), sets, MACHINE, group, checkpoint)
        trainer.resume()
        if group.rank == poisoned:
            with torch.no_grad():
                trainer.evaluated_model[0].weight.fill_(math.nan)
        try:
            return trainer.run_epoch(StopAt())
        except UserError as error:
            return str(error)


def test_more_processes_than_images_evaluate_each_image_once(digits, tmp_path):
    sets = small_sets(digits)
    sets["test"] = type(sets["test"])(*(part[:2] for part in sets["test"]))

    first, second, third = run_processes(3, tmp_path, epoch, sets, tmp_path, None)

    assert first == second == third
    assert first["test"].accuracy in (0, 0.5, 1)
    assert first["train"].accuracy * 75 == pytest.approx(round(first["train"].accuracy * 75))


def test_a_loss_that_is_no_number_in_one_process_ends_all_of_them(digits, tmp_path):
    lines = run_processes(2, tmp_path, epoch, small_sets(digits), tmp_path, 1)

    assert all(re.match("the loss is nan after step 5", line) for line in lines)
    assert not list(tmp_path.rglob("*.pt"))  # to go on from a checkpoint would end here again


def lose_a_peer(group):
    """In one of two processes: the second ends, and the first waits for it."""
    if group.rank == 1:
        os._exit(0)
    group.all_gather(torch.zeros(1))


def test_a_process_that_lost_its_peer_says_so_in_one_line(tmp_path):
    with pytest.raises(ProcessRaisedException, match="UserError: another process of this run is gone"):
        run_processes(2, tmp_path, lose_a_peer)


def test_processes_of_torchrun_refuse_a_device_that_they_cannot_share(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")

    with pytest.raises(UserError, match="mps; set device to cpu"), process_group(torch.device("mps")):
        pass


@pytest.mark.slow
def test_torchrun_trains_with_two_processes_that_evaluate_as_one_does(trained):
    # 201 images for validation: neither they nor the 3,799 others divide by two
    trained.set_params(launcher=TORCHRUN, precision="fp32", validation_size=0.0502)

    output = trained.run("dvc", "repro", "evaluate").stdout

    assert json.loads(trained.read("models/run.json"))["processes"] == 2
    alone = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]
    (loss, accuracy) = re.search(r"^epoch 1/1: .* test loss (\S+) accuracy (\S+)%", output, re.M).groups()
    assert float(loss) == pytest.approx(alone["loss"], rel=1e-4)  # the line has four decimals
    assert float(accuracy) == pytest.approx(100 * alone["accuracy"])
    metrics = json.loads(trained.read("metrics/train/metrics.json"))
    assert metrics["training_images"] == 3799
    for name, images in (("train", 3799), ("validation", 201)):
        right = metrics[name]["accuracy"] * images
        assert right == pytest.approx(round(right), abs=1e-6)  # each image was counted, and none twice


def test_a_killed_worker_fails_the_stage_and_the_next_run_goes_on(trained, tries):
    tries("SIGKILL of one of two processes", quick=0, full=1)
    trained.set_params(launcher=TORCHRUN, epochs=2)
    trained.run("dvc", "repro")
    lock = trained.read("dvc.lock")
    process = trained.start("dvc", "repro", "-f", "train")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch 1/2"):
            workers = [child for child in psutil.Process(process.pid).children(recursive=True) if not child.children()]
            os.kill(workers[-1].pid, signal.SIGKILL)
    assert process.wait() != 0
    assert "another process of this run is gone" in "".join(lines)

    done = trained.run("dvc", "repro", "-f", "train")

    assert re.search(r"going on from step \d+ of \d+", done.stdout)
    assert trained.read("dvc.lock") == lock


def test_a_killed_dvc_does_not_leave_torchrun_training_for_nobody(trained, tries):
    tries("SIGKILL of dvc above torchrun", quick=0, full=1)
    trained.set_params(launcher=TORCHRUN, epochs=100)
    with trained.start("dvc", "repro", "train") as process:
        for line in process.stdout:
            if line.startswith("epoch 1/100"):
                children = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                break

    _, alive = psutil.wait_procs(children, timeout=30)

    assert children
    assert alive == []
