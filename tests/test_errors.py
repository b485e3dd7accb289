"""How a process of ours ends: DVC goes by its exit status, and the user by its last line."""

import subprocess
import sys

import pytest
from helpers.project import ROOT

ENDINGS = {  # what main does, the exit status, and the last line on stderr
    "nothing is wrong": ("pass", 0, None),
    "the user can put it right": ("raise UserError('so')", 1, "error: so"),
    "a file is not there": ("open('no such file')", 1, "error: no such file: No such file or directory"),
    "a signal came": ("raise Interrupted('so', 15)", 143, "interrupted: so"),
    "Ctrl-C": ("raise KeyboardInterrupt", 130, "interrupted: run the same command again to go on"),
    "a status of its own": ("import sys; sys.exit(3)", 3, None),
    "memory is short": (
        "raise RuntimeError('MPS backend out of memory')", 1,
        "error: out of memory (MPS backend out of memory); try a smaller batch_size or image_size",
    ),
    "a mistake of ours": ("1 / 0", 1, "ZeroDivisionError: division by zero"),
}  # fmt: skip
PROGRAM = """
from src.pipeline.errors import Interrupted, UserError
from src.pipeline.process import exit_on_user_error, run_and_exit

@exit_on_user_error
def main():
    print("printed")
    {body}

run_and_exit(main)
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_exit_status_and_the_last_line_say_how_it_ended(ending):
    body, status, line = ENDINGS[ending]

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == status
    assert (done.stderr.splitlines() or [None])[-1] == line
    assert ("Traceback" in done.stderr) is (ending == "a mistake of ours")
    assert done.stdout == "printed\n"
