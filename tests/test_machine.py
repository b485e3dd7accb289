"""The device, the precision and the threads that a run gets."""

import os
import sys
from pathlib import Path

import psutil
import pytest
import torch

from src.pipeline.process import UserError
from src.resnet import machine as module
from src.resnet.machine import set_up_machine


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch, torch_as_it_was):
    """This process may run on eight processors, and PyTorch finds no GPU."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    monkeypatch.setattr(module, "CPU_QUOTA_FILE", Path("no such file"))
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(8)), raising=False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)


def test_without_a_gpu_it_is_the_cpu_and_to_ask_for_one_is_an_error_that_names_it():
    assert set_up_machine("auto", "fp32", 1).device == torch.device("cpu")
    with pytest.raises(UserError, match=r"device = cuda, .* auto or cpu"):
        set_up_machine("cuda", "fp32", 1)


@pytest.mark.parametrize(
    ("precision", "used", "has", "platform", "dtype"),
    [
        ("auto", "AVX512", "avx512_bf16", "linux", torch.bfloat16),
        ("auto", "DEFAULT", "bf16", "linux", torch.bfloat16),  # ARM
        ("auto", "DEFAULT", "bf16", "darwin", torch.float32),
        ("auto", "AVX2", "avx512_bf16", "linux", torch.float32),  # as by ATEN_CPU_CAPABILITY=avx2
        ("fp32", "AVX512", "avx512_bf16", "linux", torch.float32),
        ("bf16", "AVX2", "avx2", "linux", torch.bfloat16),
    ],
)
def test_auto_is_bf16_where_the_cpu_has_it_in_use(monkeypatch, precision, used, has, platform, dtype):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, has: True})

    assert set_up_machine("auto", precision, 1).dtype == dtype


@pytest.mark.parametrize(
    ("asked_for", "variables", "quota", "threads"),
    [
        (3, {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"}, None, 3),
        (0, {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"}, None, 4),
        (0, {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "16"}, None, 1),
        (0, {"LOCAL_WORLD_SIZE": "2"}, None, 8),  # not by torchrun
        (0, {}, "150000 100000", 2),
        (0, {}, "max 100000", 8),
    ],
)
def test_the_threads_are_as_asked_for_or_as_allowed(monkeypatch, tmp_path, asked_for, variables, quota, threads):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
        monkeypatch.setattr(module, "CPU_QUOTA_FILE", tmp_path / "cpu.max")

    set_up_machine("cpu", "fp32", asked_for)

    assert torch.get_num_threads() == threads


def test_processes_of_one_project_have_a_gpu_each_as_long_as_there_are_some(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda _: None)
    monkeypatch.setattr(module, "_taken", [])
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # as the queue sets it

    chosen = [set_up_machine("auto", "fp32", 1).device.index for _ in range(3)]
    module._taken.pop(0).release()  # as the end of its process does

    assert [*chosen, set_up_machine("auto", "fp32", 1).device.index] == [0, 1, 0, 0]


def test_deterministic_algorithms_are_used_and_fp32_is_fp32():
    set_up_machine("cpu", "fp32", 1)

    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
