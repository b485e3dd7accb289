"""The device, the precision and the threads that a run gets. The devices that are not here have stand-ins."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from helpers.project import ROOT
from torch import nn

from src.pipeline import machine
from src.pipeline.process import UserError
from src.resnet.machine import Machine, set_up_machine


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch, torch_as_it_was):
    """No test leaves PyTorch, or the environment, set otherwise for those that follow."""
    for variable in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    monkeypatch.setattr(machine, "CPU_QUOTA_FILE", Path("no such file"))


def under_torchrun(monkeypatch, **variables):
    """Set what torchrun sets for its processes."""
    known = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}
    for name, value in (known | variables).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def sees(monkeypatch):
    """A function that makes PyTorch see accelerators of a type, or None; it lists the devices then made current."""

    def pretend(kind: str | None, count: int = 4, capability: tuple[int, int] = (9, 0)) -> list[int]:
        current = []
        found = kind and torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: found)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "sm_100", "compute_120"])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100")
        return current

    return pretend


def test_auto_is_the_cpu_where_there_is_nothing_else(sees):
    sees(None)

    assert set_up_machine("auto", "fp32", 1).device == torch.device("cpu")


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_auto_is_the_accelerator_where_there_is_one(sees, kind):
    current = sees(kind)

    assert set_up_machine("auto", "fp32", 1).device == torch.device(kind, 0)
    assert current == [0]


def test_apples_gpu_has_no_number(sees):
    current = sees("mps")

    assert set_up_machine("mps", "fp32", 1).device == torch.device("mps")
    assert current == []


def test_auto_is_the_cpu_where_the_gpu_cannot_repeat_its_results(sees):
    sees("mps")

    assert set_up_machine("auto", "fp32", 1).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "device"), [((6, 0), "cpu"), ((7, 0), "cpu"), ((7, 5), "cuda"), ((12, 1), "cuda")]
)
def test_auto_is_the_cpu_where_pytorch_was_not_built_for_so_old_a_gpu(sees, capability, device):
    sees("cuda", capability=capability)

    assert set_up_machine("auto", "fp32", 1).device.type == device


def test_a_gpu_that_pytorch_was_not_built_for_is_a_clear_error(sees):
    sees("cuda", capability=(6, 0))

    with pytest.raises(UserError) as refused:
        set_up_machine("cuda", "fp32", 1)

    assert str(refused.value) == (
        "device = cuda, but this build of PyTorch has no code for Tesla P100; set device to auto or cpu"
    )


@pytest.mark.parametrize("kind", [None, "cuda", "mps", "xpu"])
def test_the_cpu_can_be_had_everywhere(sees, kind):
    sees(kind)

    assert set_up_machine("cpu", "fp32", 1).device == torch.device("cpu")


def test_the_cpu_is_had_without_starting_cuda(sees, monkeypatch):
    sees("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: pytest.fail("this starts CUDA"))

    assert set_up_machine("cpu", "fp32", 1).device == torch.device("cpu")


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_accelerator_can_be_asked_for_by_its_type(sees, kind):
    sees(kind)

    assert set_up_machine(kind, "fp32", 1).device.type == kind


def test_each_process_of_a_machine_has_a_gpu_of_its_own(sees, monkeypatch):
    current = sees("cuda")
    under_torchrun(monkeypatch, LOCAL_RANK="3")

    assert set_up_machine("cuda", "fp32", 1).device == torch.device("cuda", 3)
    assert current == [3]


def test_more_processes_than_gpus_are_a_clear_error(sees, monkeypatch):
    sees("cuda", count=2)
    under_torchrun(monkeypatch, LOCAL_RANK="2", LOCAL_WORLD_SIZE="3")

    with pytest.raises(UserError, match="process 3 on this machine has no cuda device: there are 2"):
        set_up_machine("cuda", "fp32", 1)


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_an_accelerator_that_is_not_there_is_a_clear_error(sees, kind):
    sees(None)

    with pytest.raises(UserError) as refused:
        set_up_machine(kind, "fp32", 1)

    assert str(refused.value) == (f"device = {kind}, but PyTorch sees the CPU alone here; set device to auto or cpu")


def test_an_accelerator_in_place_of_another_is_a_clear_error(sees):
    sees("xpu")

    with pytest.raises(UserError) as refused:
        set_up_machine("cuda", "fp32", 1)

    assert str(refused.value) == "device = cuda, but PyTorch sees xpu here; set device to auto or xpu"


@pytest.mark.parametrize(
    ("used", "instructions"), [("AVX512", "avx512_bf16"), ("AVX512", "amx_bf16"), ("DEFAULT", "bf16")]
)
def test_auto_is_bf16_where_the_cpu_has_it(sees, monkeypatch, used, instructions):
    sees(None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, instructions: True})

    assert set_up_machine("auto", "auto", 1).dtype == torch.bfloat16


def test_auto_is_fp32_where_pytorch_is_set_to_fewer_instructions_than_the_cpu_has(sees, monkeypatch):
    sees(None)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # as by ATEN_CPU_CAPABILITY=avx2
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": True})

    assert set_up_machine("auto", "auto", 1).dtype == torch.float32


def test_auto_is_fp32_on_a_macs_cpu(sees, monkeypatch):
    sees(None)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})

    assert set_up_machine("cpu", "auto", 1).dtype == torch.float32


def test_auto_is_fp32_where_the_cpu_has_no_bf16(sees, monkeypatch):
    sees(None)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})

    assert set_up_machine("auto", "auto", 1).dtype == torch.float32


@pytest.mark.parametrize(("has_it", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bf16_where_the_gpu_has_it_and_does_not_emulate_it(sees, monkeypatch, has_it, dtype):
    sees("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or has_it)

    assert set_up_machine("auto", "auto", 1).dtype == dtype


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_auto_is_fp32_where_bf16_was_never_tried(sees, kind):
    sees(kind)

    assert set_up_machine(kind, "auto", 1).dtype == torch.float32


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("capabilities", [{}, {"avx512_bf16": True}])
def test_a_precision_that_is_asked_for_is_used_everywhere(sees, monkeypatch, capabilities, precision, dtype):
    sees(None)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    assert set_up_machine("auto", precision, 1).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_matrix_work_is_done_in_the_machines_precision(dtype):
    machine = Machine(torch.device("cpu"), dtype)

    with machine.autocast():
        output = nn.Linear(2, 2)(torch.zeros(1, 2))

    assert output.dtype == dtype


def test_the_number_of_threads_is_the_one_asked_for():
    machine = set_up_machine("cpu", "fp32", 3)

    assert torch.get_num_threads() == 3
    assert machine.describe()["threads"] == 3


@pytest.mark.parametrize(("processes", "threads"), [("1", 6), ("2", 3), ("4", 1), ("8", 1)])
def test_the_processes_of_a_machine_share_the_cores_that_they_may_use(monkeypatch, processes, threads):
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(6)), raising=False)
    under_torchrun(monkeypatch, LOCAL_WORLD_SIZE=processes)

    set_up_machine("cpu", "fp32", 0)

    assert torch.get_num_threads() == threads


def test_torchruns_variables_without_torchrun_change_nothing(sees, monkeypatch):
    current = sees("cuda")
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(6)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")

    set_up_machine("cuda", "fp32", 0)

    assert torch.get_num_threads() == 6
    assert current == [0]


def test_all_cores_are_used_where_a_system_cannot_say_which_it_may_use(monkeypatch):
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 5)

    set_up_machine("cpu", "fp32", 0)

    assert torch.get_num_threads() == 5


def test_deterministic_algorithms_are_used_and_fp32_is_fp32():
    set_up_machine("cpu", "fp32", 1)

    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.slow
def test_what_cannot_be_done_deterministically_is_said_once():
    program = (  # max_unpool2d stands in for what a GPU has no deterministic kernel for: the CPU has none for this
        "import torch\n"
        "from src.resnet.machine import set_up_machine\n"
        "set_up_machine('cpu', 'fp32', 1)\n"
        "for _ in range(3): torch.nn.functional.max_unpool2d(torch.ones(1, 1, 1), torch.zeros(1, 1, 1).long(), 2)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stderr.count("does not have a deterministic implementation") == 1


def test_a_machine_is_described_by_what_the_bits_depend_on(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    machine = set_up_machine("cpu", "fp32", 2)

    assert machine.describe() == {"device": "cpu", "precision": "float32", "threads": 2, "instructions": "AVX2"}
    assert str(machine) == "cpu, float32, 2 threads, AVX2"


def test_a_gpu_is_described_by_its_name(sees, monkeypatch):
    sees("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU number {device.index}")

    machine = set_up_machine("cuda", "bf16", 2)

    assert machine.describe()["device"] == "GPU number 0"


@pytest.mark.parametrize(("content", "threads"), [("150000 100000", 2), ("max 100000", 8), ("9900000 100000", 8)])
def test_a_containers_quota_of_processors_counts(sees, monkeypatch, tmp_path, content, threads):
    sees(None)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(8)), raising=False)
    monkeypatch.setattr(machine, "CPU_QUOTA_FILE", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(f"{content}\n")

    set_up_machine("auto", "fp32", 0)

    assert torch.get_num_threads() == threads


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_no_variable_makes_fp32_less_exact_or_cublas_less_than_deterministic(variable):
    program = (
        "from src.pipeline.process import before_imports; before_imports();"  # as a stage begins
        "import os, torch; from src.resnet.machine import set_up_machine; set_up_machine('cpu', 'fp32', 1);"
        "print(torch.backends.cuda.matmul.allow_tf32, os.environ['CUBLAS_WORKSPACE_CONFIG']);"
        "torch.nn.functional.conv2d(torch.randn(8, 8, 32, 32), torch.randn(8, 8, 3, 3))"
    )
    variables = os.environ | {
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":0:0",
        variable: "BF16",
        "ONEDNN_VERBOSE": "1",
    }

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )

    line, *onednn = done.stdout.splitlines()
    assert line == "False :4096:8"
    assert onednn
    assert "attr-fpmath" not in "".join(onednn)
