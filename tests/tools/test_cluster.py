"""Experiments on Slurm: the job script by hand, and an array of it under a real Slurm of one machine."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.project import Project, needs_posix, stages_run

pytestmark = needs_posix

BIN = f"BIN={Path(sys.executable).parent}"  # the tools of this environment
MISSING = [program for program in ("slurmctld", "slurmd", "sbatch") if not shutil.which(program)]
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES State=UP
"""


def wait_until(happens: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Slurm of this machine alone: the variable by which its commands find it."""
    if MISSING:
        pytest.skip(f"needs Slurm: on Debian and Ubuntu slurmctld, slurmd and slurm-client; no {MISSING[0]} here")
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().split(".")[0]
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    conf = folder / "slurm.conf"
    values = {"host": host, "ports": ports, "user": getpass.getuser(), "processors": os.cpu_count()}
    conf.write_text(SLURM_CONF.format(folder=folder, **values))
    (folder / "spool").mkdir()
    with (folder / "daemons.log").open("w") as log:
        daemons = [
            subprocess.Popen([*command, "-D", "-f", str(conf)], stdout=log, stderr=log)
            for command in (["slurmctld"], ["slurmd", "-N", host])
        ]
    environment = {"SLURM_CONF": str(conf)}

    def ask(*command: str) -> bytes:
        return subprocess.run(command, env=os.environ | environment, capture_output=True).stdout

    try:
        wait_until(lambda: ask("sinfo", "--noheader", "--format=%T") == b"idle\n", 30)
        yield environment
    finally:
        ask("scancel", "--me")
        wait_until(lambda: not ask("squeue", "--noheader"), 90)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


@pytest.fixture
def home(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone with a Git remote, ``origin``, and a DVC remote, by a path from this clone."""
    servers = tmp_path_factory.mktemp("servers")
    trained.run("git", "init", "-q", "--bare", "-b", "main", str(servers / "origin"))
    trained.run("git", "remote", "add", "origin", str(servers / "origin"))
    trained.run("dvc", "remote", "add", "-d", "storage", os.path.relpath(servers / "storage", trained.path))
    trained.commit("where data and models are shared")
    trained.run("git", "push", "-q", "-u", "origin", "main")
    trained.origin, trained.storage = servers / "origin", servers / "storage"
    return trained


def clones(project: Project) -> list[str]:
    return [path.name for path in project.path.glob(".dvc/tmp/cluster/*/*") if path.is_dir()]


@pytest.mark.slow
def test_a_job_whose_push_fails_says_so_and_the_next_one_pushes_without_a_run(home):
    (home.path / "points.txt").write_text("seed=0 epochs=1\n")  # as the run that is there
    commit, points = (
        home.run("git", *command).stdout.strip()
        for command in (("rev-parse", "HEAD"), ("hash-object", "-w", "points.txt"))
    )
    job = ("cluster/job.sh", commit, points)
    away = home.origin.rename(home.origin.with_name("away"))

    failed = home.run(*job, ok=False, SLURM_ARRAY_TASK_ID="1")
    kept = clones(home)
    foreign = home.path / ".dvc/tmp/cluster" / commit / kept[0] / ".dvc/tmp/checkpoints/0123456789abcdef"
    foreign.mkdir(parents=True)
    away.rename(home.origin)
    second, third = (home.run(*job, SLURM_ARRAY_TASK_ID="1") for _ in range(2))

    assert "is not pushed" in failed.stderr
    assert kept == ["seed=0,epochs=1"]
    assert "Reproducing" in failed.stdout and "Reproducing" not in second.stdout + third.stdout
    assert "another processor" in second.stderr
    assert "the Git remote has it" in third.stderr
    assert clones(home) == []
    assert list(home.storage.rglob("*"))  # found from the job's clone, too


@pytest.mark.slow
def test_an_array_runs_each_point_once_and_a_job_that_is_taken_off_goes_on_to_the_bytes_of_an_undisturbed_run(
    home, slurm, tmp_path_factory
):
    (home.path / "points.txt").write_text("epochs=2\nepochs=0.25 seed=1\nepochs=0.25 seed=1\nepochs=0.25 seed=2\n")
    logs = [home.path / f"job-{number}.log" for number in (1, 2, 3, 4)]
    options = "SBATCH=--cpus-per-task=1 --output=job-%a.log"

    home.run("make", "-o", "setup", BIN, "POINTS=points.txt", options, "cluster", **slurm)
    wait_until(lambda: logs[0].exists() and "epoch 1/2" in logs[0].read_text())
    # As --signal=B:TERM@90 does when the time is over. Slurm 22.05 signals, says that it can't, and tries again.
    home.run("sh", "-c", "timeout 2 scancel --batch --signal=TERM 1_1 || true", **slurm)
    wait_until(lambda: home.run("squeue", "--noheader", "--job=1_1", "--format=%T", **slurm).stdout == "PENDING\n")
    home.run("scontrol", "update", "JobId=1_1", "StartTime=now", **slurm)  # it would wait for two minutes
    wait_until(lambda: not home.run("squeue", "--noheader", **slurm).stdout)

    printed = [log.read_text() for log in logs]
    print(*printed, sep="\n\n")
    assert "going on from step" in printed[0]
    assert sorted(stages_run(text) for text in printed[1:]) == [[], *[["train", "evaluate", "report"]] * 2]
    assert clones(home) == []
    second = Project(tmp_path_factory.mktemp("elsewhere"))
    second.run("git", "clone", "-q", str(home.origin), ".")
    second.run("dvc", "remote", "modify", "--local", "storage", "url", str(home.storage))
    second.run("dvc", "exp", "pull", "origin", "epochs=2", "epochs=0.25,seed=1", "epochs=0.25,seed=2")
    second.run("dvc", "exp", "apply", "epochs=2")
    lock = second.read("dvc.lock")
    assert "up to date" in second.run("dvc", "repro").stdout
    second.run("dvc", "repro", "-f", "train")
    assert second.read("dvc.lock") == lock
