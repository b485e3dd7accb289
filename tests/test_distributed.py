"""Several processes train as one does."""

import copy
import json
import os
import re
import signal

import psutil
import pytest
import torch
from helpers.processes import compute_in_float64, run_processes
from helpers.project import slow
from helpers.training import FROM_RANDOM_WEIGHTS, MACHINE, StopAt, small_model, small_params, small_sets
from torch import nn
from torch.multiprocessing import ProcessRaisedException

from src.mnist.dataset import Images
from src.pipeline.process import UserError
from src.resnet.network import trim
from src.train.batches import Batches
from src.train.checkpoint import Checkpoint
from src.train.stage import initial_model
from src.train.processes import ProcessGroup, process_group
from src.train.trainer import TrainingState
from src.train.processes import SyncBatchNorm2d
from src.train.trainer import Trainer

TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m"
ROUNDING = 1e-9  # in float64, whose own is 1e-16: of sums over a batch in another order, through 18 layers
LOSS_TOLERANCE = 0.02  # relative, after one epoch of the sample in fp32: rounding grows with each step
IMAGES = {"train": 3800, "validation": 200, "test": 1000}  # of the sample


def gradients_of_a_step(group, data, adds_up):
    """In one of several processes: the gradients, and the statistics, that ResNet-18's first step leaves."""
    compute_in_float64()
    if not adds_up:
        ProcessGroup.add_gradients = lambda self, model: None
    params = small_params(batch_size=7, ema_decay=0.0, label_smoothing=0.1)
    model = trim(initial_model(params, FROM_RANDOM_WEIGHTS), params.image_size)
    training = TrainingState(params, model, 10, MACHINE, group)
    batch = next(Batches(data, params, group).epoch(0))
    training.training_step(batch)
    model = training.evaluated_model
    return {name: parameter.grad for name, parameter in model.named_parameters()} | dict(model.named_buffers())


def largest_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference of two sets of tensors, each relative to the largest number in its tensor."""
    assert list(found) == list(expected)
    errors = [(found[name] - expected[name]).abs().max() / expected[name].abs().max() for name in expected]
    return torch.stack(errors).max().item()


@pytest.fixture(scope="module")
def seven_images(digits):
    """A batch that no number of processes shares equally."""
    return Images(*(tensor[:7] for tensor in small_sets(digits)["train"]))


@pytest.fixture(scope="module")
def gradients_of_one(seven_images, tmp_path_factory):
    """What one process's step on the whole batch leaves."""
    folder = tmp_path_factory.mktemp("one")
    return run_processes(1, folder, gradients_of_a_step, seven_images, True)[0]


@pytest.mark.parametrize("count", [2, slow(3)])
def test_several_processes_step_leaves_the_gradients_of_one_on_the_whole_batch(
    seven_images, gradients_of_one, tmp_path, count
):
    by_rank = run_processes(count, tmp_path, gradients_of_a_step, seven_images, True)

    assert gradients_of_one["fc.weight"].dtype == torch.float64
    assert [largest_error(found, gradients_of_one) < ROUNDING for found in by_rank] == [True] * count


def test_gradients_that_are_not_added_would_be_noticed(seven_images, gradients_of_one, tmp_path):
    by_rank = run_processes(2, tmp_path, gradients_of_a_step, seven_images, False)

    assert [largest_error(found, gradients_of_one) > 0.1 for found in by_rank] == [True, True]


def normalise_a_shard(group, norm, inputs, factors):
    """In one of several processes: normalise its shard, and go backwards; return all that comes of it."""
    compute_in_float64()
    norm = SyncBatchNorm2d.from_batchnorm(norm)
    shard = group.shard(inputs).requires_grad_()
    output = norm(shard)
    (output * group.shard(factors)).sum().backward()
    return {
        "output": output.detach(),
        "input's gradient": shard.grad,
        "weight's gradient": norm.weight.grad,
        "statistics": norm.state_dict(),
        "evaluated": norm.eval()(inputs).detach(),
    }


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """Seven inputs normalised by PyTorch's own layer, and by two processes that hold four and three of them."""
    draws = torch.Generator().manual_seed(0)
    inputs, factors = torch.randn(2, 7, 3, 4, 4, generator=draws, dtype=torch.float64)
    norm = nn.BatchNorm2d(3, dtype=torch.float64)
    nn.init.uniform_(norm.weight, 0.5, 1.5, generator=draws)
    folder = tmp_path_factory.mktemp("normalised")
    found = run_processes(2, folder, normalise_a_shard, copy.deepcopy(norm), inputs.clone(), factors)
    inputs.requires_grad_()
    output = norm(inputs)
    (output * factors).sum().backward()
    expected = {
        "output": output.detach(),
        "input's gradient": inputs.grad,
        "weight's gradient": norm.weight.grad,
        "statistics": norm.state_dict(),
        "evaluated": norm.eval()(inputs).detach(),
    }
    return found, expected


@pytest.mark.parametrize("what", ["output", "input's gradient"])
def test_batch_normalisation_sees_the_batch_of_all_processes(normalised, what):
    (first, second), expected = normalised

    torch.testing.assert_close(torch.cat([first[what], second[what]]), expected[what])


def test_the_weights_gradients_add_up_to_those_of_one_process(normalised):
    (first, second), expected = normalised

    total = first["weight's gradient"] + second["weight's gradient"]

    torch.testing.assert_close(total, expected["weight's gradient"])


def test_all_processes_have_the_statistics_of_the_whole_batch(normalised):
    found, expected = normalised

    for one in found:
        torch.testing.assert_close(dict(one["statistics"]), dict(expected["statistics"]))
        torch.testing.assert_close(one["evaluated"], expected["evaluated"])


def talk(group):
    """In one of several processes: what it hears from the others."""
    return {
        "gathered": group.all_gather(torch.tensor([group.rank, 5.0])).tolist(),
        "any": group.all_reduce_any(group.rank == 1, False),
        "broadcast": group.broadcast({"from": group.rank}),
        "main": group.is_main,
    }


def test_processes_hear_the_same(tmp_path):
    first, second = run_processes(2, tmp_path, talk)

    for heard in (first, second):
        assert heard["gathered"] == [[0, 5], [1, 5]]
        assert heard["any"] == [True, False]
        assert heard["broadcast"] == {"from": 0}
    assert (first["main"], second["main"]) == (True, False)


def agree(group, values_by_rank):
    """In one of several processes: the error that there is where they don't agree, None where they do."""
    try:
        group.require_same(values_by_rank[group.rank])
    except UserError as error:
        return str(error)
    return None


def test_processes_with_the_same_values_agree(tmp_path):
    assert run_processes(2, tmp_path, agree, [{"seed": 0}, {"seed": 0}]) == [None, None]


def test_processes_with_other_values_all_say_which_and_where(tmp_path):
    values_by_rank = [{"seed": 0, "lr": 0.1, "torch": "3.0"}, {"seed": 1, "lr": 0.1}]

    errors = run_processes(2, tmp_path, agree, values_by_rank)

    assert errors == ["process 1 and process 0 must have the same seed, torch"] * 2


def test_a_single_process_agrees_with_itself():
    ProcessGroup().require_same({"seed": 0})


def test_a_single_process_hears_itself_and_changes_nothing():
    group, model = ProcessGroup(), small_model()

    assert group.is_main
    assert group.all_gather(torch.tensor([2.0, 3.0])).tolist() == [[2, 3]]
    assert group.all_reduce_any(False, True) == [False, True]
    assert group.broadcast("value") == "value"
    assert group.convert_sync_batchnorm(model) is model


def test_shards_are_all_rows_in_order_and_differ_by_one_row_at_most():
    shards = [ProcessGroup(rank, 3).shard(torch.arange(7)).tolist() for rank in range(3)]

    assert shards == [[0, 1, 2], [3, 4], [5, 6]]


def evaluate_more_processes_than_images(group, sets, folder):
    """In one of three processes: the metrics of an epoch, where the test set has two images."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(folder))
        trainer = Trainer(small_params(), small_model(), sets, MACHINE, group)
        trainer.resume(Checkpoint({}))
        results = trainer.run_epoch(StopAt())
    return {"results": results, "model": trainer.evaluated_model.state_dict()}


def test_more_processes_than_images_evaluate_each_image_once(digits, tmp_path):
    sets = small_sets(digits)
    sets["test"] = Images(*(tensor[:2] for tensor in sets["test"]))

    first, second, third = run_processes(3, tmp_path, evaluate_more_processes_than_images, sets, tmp_path)

    assert first["results"] == second["results"] == third["results"]
    assert first["results"]["test"].accuracy in (0, 0.5, 1)
    assert first["results"]["train"].accuracy * 75 == pytest.approx(round(first["results"]["train"].accuracy * 75))


def lose_a_peer(group):
    """In one of two processes: the second ends, and the first waits for it."""
    if group.rank == 1:
        os._exit(0)
    group.all_gather(torch.zeros(1))


def test_a_process_that_lost_its_peer_says_so_in_one_line(tmp_path):
    expected = "UserError: another process of this run is gone; run the same command again to go on"

    with pytest.raises(ProcessRaisedException, match=expected):
        run_processes(2, tmp_path, lose_a_peer)


def test_processes_of_torchrun_refuse_a_device_that_they_cannot_share(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")

    with pytest.raises(UserError, match="can't train on mps; set device to cpu"), process_group(torch.device("mps")):
        pass


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="out of memory"), process_group(torch.device("cpu")):
        raise RuntimeError("out of memory")


def epoch_metrics(output: str) -> dict[str, tuple[float, float]]:
    """The loss and the accuracy of each set, from the line that a run of one epoch printed."""
    (line,) = re.findall(r"^epoch 1/1: .*", output, re.M)
    found = re.findall(r"(\w+) loss (\S+) accuracy (\S+)%", line)
    return {name: (float(loss), float(accuracy) / 100) for name, loss, accuracy in found}


@pytest.mark.slow
def test_torchrun_trains_with_two_processes_that_evaluate_as_one_does(trained):
    # 201 images for validation: neither they nor the 3,799 others divide by two
    trained.set_params(launcher=TORCHRUN, precision="fp32", validation_size=0.0502)

    done = trained.run("dvc", "repro", "evaluate")

    assert f"> {TORCHRUN} src.train" in done.stdout
    assert json.loads(trained.read("models/run.json"))["processes"] == 2
    alone = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]
    loss, accuracy = epoch_metrics(done.stdout)["test"]
    assert loss == pytest.approx(alone["loss"], rel=1e-4)  # the line has four decimals
    assert accuracy == pytest.approx(alone["accuracy"])
    metrics = json.loads(trained.read("metrics/train/metrics.json"))
    assert metrics["training_images"] == 3799
    for name, images in (("train", 3799), ("validation", 201)):
        right = metrics[name]["accuracy"] * images
        assert right == pytest.approx(round(right), abs=1e-6)  # each image was counted, and none twice


def test_after_an_epoch_two_processes_are_where_one_is(trained, tries):
    tries("an epoch of two processes against one's", quick=0, full=1)
    trained.set_params(precision="fp32", schedule="constant", lr=0.0001, ema_decay=0.0)
    one = epoch_metrics(trained.run("dvc", "repro", "train").stdout)
    trained.set_params(launcher=TORCHRUN)

    two = epoch_metrics(trained.run("dvc", "repro", "train").stdout)

    assert list(two) == ["train", "validation", "test"]
    for name, (loss, accuracy) in two.items():
        assert loss == pytest.approx(one[name][0], rel=LOSS_TOLERANCE)
        assert accuracy == pytest.approx(one[name][1], abs=IMAGES[name] ** -0.5)  # two standard errors at most


def test_a_killed_worker_fails_the_stage_and_the_next_run_goes_on(trained, tries):
    tries("SIGKILL of one of two processes", quick=0, full=1)
    trained.set_params(launcher=TORCHRUN, epochs=3)
    undisturbed = trained.run("dvc", "repro")
    assert "going on" not in undisturbed.stdout
    lock = trained.read("dvc.lock")
    process = trained.start("dvc", "repro", "-f", "train")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch 1/3"):
            workers = [child for child in psutil.Process(process.pid).children(recursive=True) if not child.children()]
            os.kill(workers[-1].pid, signal.SIGKILL)
    output = "".join(lines)
    assert process.wait() != 0
    assert "another process of this run is gone; run the same command again to go on" in output

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
