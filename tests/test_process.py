"""How a process of ours begins and ends, and what it makes of signals. DVC goes by its exit status."""

import ast
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from helpers.project import ROOT, needs_posix

from src.pipeline import process
from src.pipeline.inputs import hash_inputs
from src.pipeline.process import INTERRUPTED, UserError, exit_code, print_styled
from src.train.signals import StopSignal

STAGE = """
import os, signal, sys
from src.pipeline.process import Interrupted, UserError
{on_import}

def main():
    print("printed")
    {body}
"""


@needs_posix
def test_an_error_is_coloured_on_a_terminal_alone(monkeypatch):
    terminal, line = io.StringIO(), "error: [so] " * 20
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    print_styled(line, "red", terminal)

    assert terminal.getvalue().startswith("\x1b[31m")
    assert line in terminal.getvalue()  # and not wrapped


@pytest.fixture
def run_stage(tmp_path):
    """A function that runs a stage as its ``__main__.py`` does, in a process of its own."""

    def run(body="pass", on_import="", **variables) -> subprocess.CompletedProcess:
        (tmp_path / "stage.py").write_text(STAGE.format(body=body, on_import=on_import))
        command = [sys.executable, "-c", "from src.pipeline.process import run; run('stage')"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"} | variables
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # two stages of one size in one second would share it
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("pass", 0, None),
        ("raise UserError('so')", 1, "error: so"),
        ("open('no such file')", 1, "error: no such file: No such file or directory"),
        ("raise Interrupted('so', 15)", 143, "interrupted: so"),
        ("sys.exit(3)", 3, None),
        ("sys.exit('so')", 1, "so"),
        ("raise RuntimeError('so')", 1, "RuntimeError: so"),  # a mistake of ours
    ],
)
def test_the_exit_status_and_the_last_line_say_how_it_ended(run_stage, body, status, line):
    done = run_stage(body)

    assert done.returncode == status
    assert (done.stderr.splitlines() or [None])[-1] == line
    assert ("Traceback" in done.stderr) is ("RuntimeError" in body)
    assert done.stdout == "printed\n"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_one_line_on_each_device(capsys, error):
    def main():
        raise error

    assert exit_code(main) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert re.search("^error: out of memory .*batch_size", line)


def test_the_environment_is_closed_before_the_libraries_are_imported(run_stage):
    gone = dict.fromkeys(("OMP_PROC_BIND", "MKL_NUM_STRIPES", "DVCLIVE_TEST", "MPLBACKEND", "GLIBC_TUNABLES"), "odd")
    shown = "print(sorted(os.environ))"

    done = run_stage(on_import=shown, LC_ALL="C", no_proxy="*", GOMP_SPINCOUNT="5", **gone)

    names = set(ast.literal_eval(done.stdout.splitlines()[0]))
    assert {"PATH", "LC_ALL", "no_proxy", "GOMP_SPINCOUNT"} <= names
    assert not names & set(gone)


@needs_posix
def test_ctrl_c_ends_the_process_at_once_during_the_import_and_lets_a_stage_tidy_up_later(run_stage):
    ctrl_c = "try: os.kill(os.getpid(), signal.SIGINT)\n{}finally: print('tidied up')"

    at_first, later = run_stage(on_import=ctrl_c.format("")), run_stage(ctrl_c.format("    "))

    assert (at_first.returncode, at_first.stdout, at_first.stderr) == (130, "", f"{INTERRUPTED}\n")
    assert (later.returncode, later.stdout, later.stderr) == (130, "printed\ntidied up\n", f"{INTERRUPTED}\n")


def test_a_line_appears_when_it_is_printed_whatever_the_terminal_can_show(run_stage):
    done = run_stage("print('28 × 28'); os._exit(7)", PYTHONIOENCODING="ascii")

    assert done.stdout == "printed\n28 \\xd7 28\n"


@pytest.mark.parametrize(
    ("file", "content"),
    [("params.yaml", "lr: ["), ("src/train/new.py", ""), ("src/train/trainer.py", "import torch\n"), ("dvc.yaml", "")],
)
def test_each_change_of_what_a_stage_depends_on_is_seen(tmp_path, monkeypatch, file, content):
    for name in ("dvc.yaml", "params.yaml", "src"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.pipeline.inputs.ROOT", tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setattr(process, "_inputs_at_start", hash_inputs())
    (tmp_path / "src/train/.trainer.py.swp").touch()
    process.require_unchanged_inputs()

    (tmp_path / file).write_text(content)

    with pytest.raises(UserError):
        process.require_unchanged_inputs()


@pytest.mark.parametrize("stage", ["train", "another", "../dvc.yaml:train"])
def test_a_stage_of_another_project_has_no_inputs_here(tmp_path, monkeypatch, stage):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", stage)

    assert hash_inputs() == {}


# Signals


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_alone_and_the_handlers_come_back_but_after_an_error(handlers_as_they_were, number):
    signal.signal(number, signal.SIG_DFL)  # under nohup a SIGHUP is ignored

    with StopSignal() as stop:
        before = stop.received
        os.kill(os.getpid(), number)
        after = stop.received

    assert (before, after) == (None, number)
    assert signal.getsignal(number) == signal.SIG_DFL
    with contextlib.suppress(UserError), StopSignal():
        raise UserError  # whose line has yet to be printed, while torchrun sends a SIGTERM to all
    assert signal.getsignal(number) != signal.SIG_DFL


@needs_posix
@pytest.mark.parametrize("between", [(), ("sh", "-c", '"$0" "$@"; true')], ids=["at once", "by a shell"])
def test_the_dvc_that_runs_a_stage_is_found(tmp_path, between):
    lines = ("import os, sys", "print(os.getpid(), flush=True)", "os.spawnvp(os.P_WAIT, sys.argv[1], sys.argv[1:])")
    (tmp_path / "dvc").write_text("\n".join(lines))
    program = "from src.train.signals import process_that_started_this as starter; print(starter().pid)"
    command = [sys.executable, tmp_path / "dvc", *between, sys.executable, "-c", program]

    dvc, found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert found == dvc


@needs_posix
@pytest.mark.parametrize(("variables", "noted"), [({"DVC_STAGE": "train"}, signal.SIGTERM), ({}, None)])
def test_the_end_of_dvc_is_a_request_to_stop_a_stage(monkeypatch, handlers_as_they_were, variables, noted):
    dvc = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr("src.train.signals.process_that_started_this", lambda: psutil.Process(dvc.pid))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with StopSignal() as stop:
        before = stop.received
        dvc.kill()
        os.waitid(os.P_PID, dvc.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken note of it yet
        after = stop.received
    dvc.communicate()

    assert (before, after) == (None, noted)
