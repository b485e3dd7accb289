"""Several processes train as one does."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from helpers.processes import run_processes, torchrun_variables
from helpers.project import ROOT, slow
from helpers.training import (
    FROM_RANDOM_WEIGHTS,
    MACHINE,
    MNIST_INPUT,
    StopAt,
    small_model,
    small_params,
    small_sets,
    write_small_project,
)

from src.images.dataset import Images
from src.pipeline.process import UserError
from src.resnet.network import trim
from src.train.batches import Batches, ImagesOnDevice
from src.train.checkpoint import Checkpoint
from src.train.processes import ProcessGroup, process_group
from src.train.stage import initial_model
from src.train.trainer import Trainer, TrainingState

TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m"
ROUNDING = 1e-9  # in float64, whose own is 1e-16: of sums over a batch in another order, through 18 layers


def step_of_resnet(group, data, shards):
    """The gradients that ResNet-18's first step leaves in ``group``, and the main process's statistics.

    ``shards`` share the batch: ``group`` itself, unless one process takes the step of one of several.
    """
    # Two ways to add up the same terms differ by rounding alone, and so by little that nothing else can hide in it.
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    params = small_params(batch_size=7, ema_decay=0.0, label_smoothing=0.1)
    model = trim(initial_model(params, FROM_RANDOM_WEIGHTS), params.image_size)
    training = TrainingState(params, model, 10, MACHINE, group)
    batches = Batches(ImagesOnDevice(data, MACHINE.device), params, MNIST_INPUT, shards or group)
    training.training_step(next(batches.epoch(0)))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return gradients, dict(training.evaluated_model([]).named_buffers())


@pytest.mark.parametrize("count", [2, slow(3)])
def test_a_step_of_several_processes_leaves_the_sum_of_what_their_shards_give_and_the_first_ones_statistics(
    digits, tmp_path, count
):
    train = small_sets(digits)["train"]
    seven = Images(train.images[:7], train.labels[:7])  # which no number of processes shares equally
    alone = [run_processes(1, tmp_path, step_of_resnet, seven, ProcessGroup(rank, count))[0] for rank in range(count)]
    gradients = {name: sum(by_name[name] for by_name, _ in alone) for name in alone[0][0]}

    by_rank = run_processes(count, tmp_path, step_of_resnet, seven, None)

    assert gradients["fc.weight"].dtype == torch.float64
    for found in by_rank:
        for tensors, expected in zip(found, (gradients, alone[0][1]), strict=True):
            assert tensors.keys() == expected.keys()
            for name, tensor in tensors.items():
                assert (tensor - expected[name]).abs().max() <= ROUNDING * expected[name].abs().max(), name


def epoch(group, sets, folder, poisoned):
    """In one of several processes: an epoch's metrics, or the error that ended it. The second's input may be NaN."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(folder))
        monkeypatch.setattr("src.train.trainer.CHECK_EVERY", 2)
        checkpoint = Checkpoint({"poisoned": poisoned})
        trainer = Trainer(small_params(), MNIST_INPUT, small_model(), sets, MACHINE, group, checkpoint)
        trainer.resume()
        take_step = trainer.state.training_step

        def poisoned_step(batch):
            now = group.rank == 1 and trainer.state.step + 1 == poisoned
            return take_step(batch._replace(inputs=batch.inputs * math.nan) if now else batch)

        monkeypatch.setattr(trainer.state, "training_step", poisoned_step)
        try:
            return trainer.run_epoch(StopAt())
        except (UserError, SystemExit) as error:
            return str(error)


def test_more_processes_than_images_evaluate_each_image_once(digits, tmp_path):
    sets = small_sets(digits)
    sets["test"] = Images(sets["test"].images[:2], sets["test"].labels[:2])

    first, second, third = run_processes(3, tmp_path, epoch, sets, tmp_path, None)

    assert first == second == third
    assert first["test"].accuracy in (0, 0.5, 1)
    assert first["train"].accuracy * 75 == pytest.approx(round(first["train"].accuracy * 75))


@pytest.mark.parametrize("step", [4, 5])  # at which the loss is looked at, and the last of an epoch
def test_a_loss_that_is_no_number_in_one_process_ends_all_of_them_with_one_line(digits, tmp_path, step):
    first, second = run_processes(2, tmp_path, epoch, small_sets(digits), tmp_path, step)

    assert re.match(f"the loss is nan after step {step};", first)
    assert second == "1"
    assert not list(tmp_path.rglob("*.pt"))  # to go on from a checkpoint would end here again


@pytest.mark.parametrize(
    ("device", "line"), [("mps", "mps; set device to cpu"), ("cpu", r"^can't join [^\n]* nowhere$")]
)
def test_a_device_that_processes_cannot_share_or_an_interface_that_is_not_there_is_one_line(monkeypatch, device, line):
    for name, value in (torchrun_variables(1) | {"RANK": "0", "GLOO_SOCKET_IFNAME": "nowhere"}).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(UserError, match=line), process_group(torch.device(device)):
        pass


@pytest.mark.slow
def test_torchrun_trains_with_two_processes_that_evaluate_as_one_does(trained):
    # 201 images for validation: neither they nor the 3,799 others divide by two
    trained.set_params(launcher=TORCHRUN, precision="fp32", validation_size=0.0502)

    output = trained.run("dvc", "repro", "evaluate").stdout

    assert json.loads(trained.read("models/run.json"))["processes"] == 2
    alone = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]
    (loss, accuracy) = re.search(r"^epoch 1/1: .* test (\S+) (\S+)%", output, re.M).groups()
    assert float(loss) == pytest.approx(alone["loss"], abs=6e-5)  # the line has four decimals
    assert float(accuracy) == pytest.approx(100 * alone["accuracy"])
    metrics = json.loads(trained.read("metrics/train/metrics.json"))
    assert metrics["training_images"] == 3799
    for name, images in (("train", 3799), ("validation", 201)):
        right = metrics[name]["accuracy"] * images
        assert right == pytest.approx(round(right), abs=1e-6)  # each image was counted, and none twice


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 3])
def test_what_a_killed_worker_left_goes_on_by_itself_or_in_the_next_run(trained, restarts):
    trained.set_params(launcher=TORCHRUN.replace(" -m", f" --max-restarts {restarts} -m"), epochs=2)
    trained.run("dvc", "repro")
    lock = trained.read("dvc.lock")
    process = trained.start("dvc", "repro", "-f", "train")
    lines = []
    for line in process.stdout:
        if line.startswith("epoch 1/2") and not any("epoch 1/2" in earlier for earlier in lines):
            workers = [child for child in psutil.Process(process.pid).children(recursive=True) if not child.children()]
            os.kill(workers[-1].pid, signal.SIGKILL)
        lines.append(line)
    assert (process.wait() == 0) is (restarts > 0)
    if not restarts:
        assert "another process of this run is gone" in "".join(lines)
        lines.append(trained.run("dvc", "repro", "-f", "train").stdout)

    assert re.search(r"going on from step \d+ of \d+", "".join(lines))
    assert trained.read("dvc.lock") == lock


@pytest.mark.slow
def test_a_killed_dvc_does_not_leave_torchrun_training_for_nobody(trained):
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


# Two machines in the namespaces of one, joined by a pair of interfaces. All of it is gone when the script ends.
NETWORK = """
mount -t tmpfs none /run && mkdir /run/netns && ip netns add first && ip netns add second &&
ip link add eth1 netns first type veth peer name eth2 netns second &&
ip -n first address add 10.9.0.1/24 dev eth1 && ip -n second address add 10.9.0.2/24 dev eth2 &&
ip -n first link set lo up && ip -n first link set eth1 up &&
ip -n second link set lo up && ip -n second link set eth2 up || exit
"""
MACHINES = """
echo "127.0.1.1 first" >first/hosts  # so Debian and Ubuntu call the machine itself
printf "127.0.1.1 second\n10.9.0.1 first\n" >second/hosts
start() {
    cd $1 && exec nsenter --net=/run/netns/$1 unshare --mount --uts sh -c "
        hostname $1 && mount --bind hosts /etc/hosts &&
        exec torchrun --nnodes 2 --node-rank $2 --master-addr first --master-port 29500 -m src.train"
}
start first 0 &
start second 1 && wait $!
"""


def in_namespaces(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a script as the root of namespaces of its own, whose network is empty."""
    namespaces = ["--map-root-user", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = ["unshare", *namespaces, "sh", "-c", script]
    variables = os.environ | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_machines_whose_own_names_mean_127_0_1_1_train_together_by_the_documented_command(digits, tmp_path):
    if sys.platform != "linux" or in_namespaces(NETWORK, tmp_path).returncode:
        pytest.skip("needs Linux, unshare and ip, and to be allowed namespaces")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_small_project(tmp_path / name, digits, epochs=1)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    done = in_namespaces(NETWORK + MACHINES, tmp_path, PYTHONPATH=str(ROOT), PATH=path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "first/models/run.json").read_text())["processes"] == 2
    assert not (tmp_path / "second/models").exists()
