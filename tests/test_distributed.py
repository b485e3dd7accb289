"""Several processes train as one does."""

import copy
import json
import os
import re
import signal
import subprocess

import psutil
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from src.mnist.images import Images
from src.pipeline.params import load_params
from src.train.batches import training_batches
from src.train.distributed import Processes, SyncBatchNorm2d

TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m"
TOLERANCE = 0.02  # relative, of a loss after one epoch of the sample in fp32; two processes add up in another order


def in_process_of_two(rank: int, folder: str) -> None:
    """Normalise this process's share of seven images, and check output, gradients and statistics against one's."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    processes = Processes(rank, 2)
    torch.manual_seed(0)
    inputs, factors = torch.randn(7, 3, 4, 4), torch.randn(7, 3, 4, 4)
    alone = nn.BatchNorm2d(3)
    nn.init.normal_(alone.weight)
    together = SyncBatchNorm2d.of(copy.deepcopy(alone))
    whole, share = inputs.clone().requires_grad_(), processes.share(inputs).clone().requires_grad_()
    expected, output = alone(whole), together(share)
    (expected * factors).sum().backward()
    (output * processes.share(factors)).sum().backward()
    dist.all_reduce(together.weight.grad)
    assert torch.allclose(output, processes.share(expected), atol=1e-5)
    assert torch.allclose(share.grad, processes.share(whole.grad), atol=1e-5)
    assert torch.allclose(together.weight.grad, alone.weight.grad, atol=1e-4)
    for name, statistic in alone.state_dict().items():
        assert torch.allclose(together.state_dict()[name].float(), statistic.float(), atol=1e-5), name
    assert torch.allclose(together.eval()(inputs), alone.eval()(inputs), atol=1e-5)
    assert processes.gather(torch.tensor([rank, 5.0])).tolist() == [[0, 5], [1, 5]]
    assert processes.any(rank == 1, False) == [True, False]
    assert processes.from_first({"from": rank}) == {"from": 0}
    dist.destroy_process_group()


def test_batch_normalisation_sees_the_batch_of_all_processes(tmp_path):
    torch.multiprocessing.spawn(in_process_of_two, (str(tmp_path),), nprocs=2)


@pytest.mark.parametrize("count", [2, 3])
def test_the_processes_shares_are_the_one_processs_batches(digits, count):
    images, _ = digits
    params = load_params().model_copy(update={"batch_size": 16})
    data = Images(torch.from_numpy(images[:100]), torch.arange(100, dtype=torch.uint8))
    alone = list(training_batches(data, params, epoch=1))
    shares = [list(training_batches(data, params, 1, 0, Processes(rank, count))) for rank in range(count)]
    for step, (inputs, labels, size) in enumerate(alone):
        assert torch.equal(torch.cat([share[step][1] for share in shares]), labels)
        assert torch.allclose(torch.cat([share[step][0] for share in shares]), inputs, atol=1e-5)
        assert {share[step][2] for share in shares} == {size}


def test_an_epoch_can_be_taken_up_at_any_step(digits):
    images, _ = digits
    params = load_params().model_copy(update={"batch_size": 16})
    data = Images(torch.from_numpy(images[:100]), torch.arange(100, dtype=torch.uint8))
    whole, rest = list(training_batches(data, params, 1)), list(training_batches(data, params, 1, first=4))
    for (inputs, labels, _), (same_inputs, same_labels, _) in zip(whole[4:], rest, strict=True):
        assert torch.equal(labels, same_labels) and torch.equal(inputs, same_inputs)


def metrics(project) -> dict:
    return json.loads(project.read("metrics/train/metrics.json"))


def test_two_processes_agree_with_one_and_count_each_image_once(trained):
    # 201 images for validation: neither they nor the 3,799 others divide by two
    trained.set_params(precision="fp32", validation_size=0.0502, schedule="constant", lr=0.0001, ema_decay=0)
    trained.run("dvc", "repro")
    one = metrics(trained)
    trained.set_params(launcher=TORCHRUN)
    done = trained.run("dvc", "repro")
    assert f"> {TORCHRUN} src.train" in done.stdout and done.stdout.count("epoch 1/1:") == 1
    two = metrics(trained)
    assert two["training_images"] == 3799
    for name, images in (("train", 3799), ("validation", 201), ("test", 1000)):
        assert two[name]["loss"] == pytest.approx(one[name]["loss"], rel=TOLERANCE), name
        assert two[name]["accuracy"] == pytest.approx(one[name]["accuracy"], abs=TOLERANCE), name
        assert two[name]["accuracy"] * images == pytest.approx(round(two[name]["accuracy"] * images), abs=1e-6)
    alone = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]
    assert two["test"]["accuracy"] == alone["accuracy"]
    assert two["test"]["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_a_killed_worker_fails_the_stage_and_the_next_run_goes_on(trained, tries):
    tries("SIGKILL of one of two processes", quick=0, full=1)
    trained.set_params(launcher=TORCHRUN, epochs=3)
    undisturbed = trained.run("dvc", "repro")
    assert "going on" not in undisturbed.stdout
    lock = trained.read("dvc.lock")
    process = subprocess.Popen(
        ["dvc", "repro", "-f", "train"],
        cwd=trained.path, env=trained.environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
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
