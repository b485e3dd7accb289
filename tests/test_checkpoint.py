"""Checkpoints belong to one run, and are whole or not there."""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from src.pipeline.errors import UserError
from src.train.checkpoint import DIGEST_SIZE, KEPT, Checkpoint
from src.train.interruption import Interruption


@pytest.fixture(autouse=True)
def project_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((3,), float(step)), "history": [{"train": (0.5, 0.9)}]}


def test_the_newest_state_comes_back():
    checkpoint = Checkpoint({"seed": 0})
    assert checkpoint.load() is None
    for step in (5, 10, 15):
        checkpoint.save(step, state(step))
    loaded = Checkpoint({"seed": 0}).load()
    assert loaded["step"] == 15 and loaded["weights"].tolist() == [15] * 3 and loaded["history"] == state(15)["history"]
    assert len(list(checkpoint.folder.iterdir())) == KEPT


def test_another_run_finds_nothing():
    Checkpoint({"seed": 0}).save(5, state(5))
    assert Checkpoint({"seed": 1}).load() is None


def test_an_experiment_in_a_folder_of_its_own_finds_the_projects_checkpoints(tmp_path, monkeypatch):
    Checkpoint({"seed": 0}).save(5, state(5))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # as DVC does for `dvc exp run --temp` and the queue
    assert Checkpoint({"seed": 0}).load()["step"] == 5


def test_a_removed_checkpoint_leaves_nothing(tmp_path):
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(5, state(5))
    checkpoint.remove()
    assert checkpoint.load() is None
    assert list((tmp_path / ".dvc/tmp/checkpoints").iterdir()) == []


@pytest.mark.parametrize("sound", [1, 0])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(capsys, sound):
    checkpoint = Checkpoint({"seed": 0})
    for step in (5, 10)[1 - sound :]:
        checkpoint.save(step, state(step))
    newest = checkpoint.folder / "000000010.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    loaded = checkpoint.load()
    assert loaded["step"] == 5 if sound else loaded is None
    assert "000000010.pt is damaged (its hash is wrong), set aside as 000000010.damaged" in capsys.readouterr().out
    assert newest.with_suffix(".damaged").exists() and not newest.exists()


def test_a_pickle_in_place_of_a_checkpoint_is_never_executed(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    checkpoint = Checkpoint({"seed": 0})
    checkpoint.folder.mkdir(parents=True)
    payload = pickle.dumps({"step": Trap()})
    (checkpoint.folder / "000000010.pt").write_bytes(hashlib.sha256(payload).digest() + payload)
    assert checkpoint.load() is None
    assert "damaged" in capsys.readouterr().out
    assert not (tmp_path / "sprung").exists()


def test_any_mutation_of_a_checkpoint_is_noticed(tries, mutations, capsys):
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(10, state(10))
    file = checkpoint.folder / "000000010.pt"
    content = file.read_bytes()
    for mutated in mutations(content, tries("checkpoint file mutated", quick=20, full=100), first=DIGEST_SIZE):
        file.write_bytes(mutated)
        assert checkpoint.load() is None
        assert "damaged" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(monkeypatch):
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(5, state(5))

    def full_disk(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        checkpoint.save(10, state(10))
    assert checkpoint.load()["step"] == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.signal is None
        os.kill(os.getpid(), number)
        assert interruption.signal == number
    assert signal.getsignal(number) == before


def test_a_signal_that_comes_after_an_error_does_not_keep_its_line_from_the_user():
    program = (
        "import os, signal; from src.errors import UserError, exit_on_user_error\n"
        "from src.interruption import Interruption\n"
        "@exit_on_user_error\n"
        "def main():\n"
        "    try:\n"
        "        with Interruption(): raise UserError('a process is gone')\n"
        "    finally: os.kill(os.getpid(), signal.SIGTERM)\n"
        "main()\n"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: a process is gone\n")


def test_the_end_of_the_parent_is_a_request_to_stop_for_a_stage_of_dvcs(tmp_path):
    child = (
        "import sys, time; from src.interruption import Interruption\n"
        "with Interruption() as interruption:\n"
        "    print('ready', flush=True); sys.stdin.read()\n"  # until the parent and its end of the pipe are gone
        "    time.sleep(0.2); open('noted', 'w').write(str(interruption.signal))\n"
    )
    parent = (
        "import sys; from subprocess import PIPE, Popen\n"
        f"process = Popen([sys.executable, '-c', {child!r}], stdin=PIPE, stdout=PIPE)\n"
        "process.stdout.readline()\n"
    )
    root = str(Path(__file__).resolve().parent.parent)
    for dvc_stage, expected in (("train", str(int(signal.SIGTERM))), (None, "None")):
        env = {**os.environ, "PYTHONPATH": root} | ({"DVC_STAGE": dvc_stage} if dvc_stage else {})
        (tmp_path / "noted").unlink(missing_ok=True)
        subprocess.run([sys.executable, "-c", parent], env=env, cwd=tmp_path, check=True, timeout=60)
        for _ in range(100):
            if (tmp_path / "noted").exists() and (tmp_path / "noted").read_text():
                break
            time.sleep(0.1)
        assert (tmp_path / "noted").read_text() == expected
