"""Ctrl-C and SIGTERM are requests to stop, and so is the end of the DVC that runs a stage."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.project import ROOT, needs_posix

from src.train.signals import StopSignal

pytestmark = needs_posix

AFTER_AN_ERROR = """
import os, signal
from src.pipeline.process import UserError
from src.pipeline.process import exit_on_user_error
from src.train.signals import StopSignal

@exit_on_user_error
def main():
    try:
        with StopSignal():
            raise UserError("a process is gone")
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

main()
"""

TRAINING = """
import sys, time
from pathlib import Path

import psutil

from src.train.signals import StopSignal

with StopSignal() as stop:
    print("ready", flush=True)
    sys.stdin.read()  # until the one that started this is gone, and with it the other end of the pipe
    while int(sys.argv[1]) in [process.pid for process in psutil.Process().parents()]:
        time.sleep(0.01)
    Path("noted.partial").write_text(str(stop.received))
Path("noted.partial").rename("noted")
"""

STARTER = """
import os, subprocess, sys

command = [*sys.argv[1:], str(os.getpid())]
training = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
training.stdout.readline()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_does_nothing_else(handlers_as_they_were, number):
    with StopSignal() as stop:
        before = stop.received
        os.kill(os.getpid(), number)
        after = stop.received

    assert (before, after) == (None, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_handlers_as_they_were(handlers_as_they_were, number):
    before = signal.getsignal(number)

    with StopSignal():
        within = signal.getsignal(number)

    assert within != before
    assert signal.getsignal(number) == before


def test_a_signal_that_comes_after_an_error_does_not_keep_its_line_from_the_user():
    done = subprocess.run([sys.executable, "-c", AFTER_AN_ERROR], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stderr == "error: a process is gone\n"
    assert done.returncode == 1


@pytest.fixture
def signal_after_the_end_of(tmp_path):
    """A function that runs a program that starts a training and ends; it tells which signal the training noted."""
    (tmp_path / "training.py").write_text(TRAINING)

    def start(name, *command, **variables):
        (tmp_path / name).write_text(STARTER)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)} | variables
        subprocess.run([sys.executable, name, *command], env=environment, cwd=tmp_path, check=True, timeout=60)
        for _ in range(600):  # a minute, for a busy machine
            if (tmp_path / "noted").exists():
                break
            time.sleep(0.1)
        return (tmp_path / "noted").read_text()

    return start


def test_the_end_of_dvc_is_a_request_to_stop(signal_after_the_end_of):
    noted = signal_after_the_end_of("dvc", sys.executable, "training.py", DVC_STAGE="train")

    assert noted == str(int(signal.SIGTERM))


def test_the_end_of_dvc_is_a_request_to_stop_where_a_shell_stands_between(signal_after_the_end_of):
    shell = ("sh", "-c", '"$0" "$@"; true')

    noted = signal_after_the_end_of("dvc", *shell, sys.executable, "training.py", DVC_STAGE="train")

    assert noted == str(int(signal.SIGTERM))


def test_the_end_of_a_parent_that_is_not_called_dvc_is_a_request_to_stop_too(signal_after_the_end_of):
    noted = signal_after_the_end_of("an_ide", sys.executable, "training.py", DVC_STAGE="train")

    assert noted == str(int(signal.SIGTERM))


def test_a_training_that_dvc_did_not_start_goes_on_after_the_end_of_its_parent(signal_after_the_end_of):
    noted = signal_after_the_end_of("a_shell", sys.executable, "training.py")

    assert noted == "None"
