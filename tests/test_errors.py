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
    "a mistake of ours": ("1 / 0", 1, "ZeroDivisionError: division by zero"),
}  # fmt: skip
OUT_OF_MEMORY = {  # by where: PyTorch's words, or Python's
    "MPS": "RuntimeError('MPS backend out of memory')",
    "CUDA": "RuntimeError('CUDA out of memory.')",
    "cuBLAS": "RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')",
    "CPU": 'RuntimeError("DefaultCPUAllocator: can\'t allocate memory")',
    "CPU on Windows": "RuntimeError('DefaultCPUAllocator: not enough memory')",
    "Python": "MemoryError()",
}
PROGRAM = """
from src.pipeline.process import Interrupted, UserError
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


@pytest.mark.parametrize("where", OUT_OF_MEMORY)
def test_out_of_memory_is_one_line_on_each_device(where):
    program = PROGRAM.format(body=f"raise {OUT_OF_MEMORY[where]}")

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: out of memory (")
    assert line.endswith("; a stage needs less with a smaller batch_size or image_size")
