"""The machine that something is measured on."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

from src.resnet.machine import Machine


def processor_name() -> str:
    """As the operating system calls it."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def machine_name(machine: Machine) -> str:
    """The processor, what is used of it, and the PyTorch that uses it: what a result's bits and seconds depend on.

    A processor that was kept from AVX-512 is another than one that has none, and is named so.
    """
    has_avx512 = torch.cpu.get_capabilities().get("avx512_f", False)  # of the processor, used or not
    masked = machine.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2" and has_avx512
    return f"{processor_name()}, {machine}{' (AVX-512 masked)' if masked else ''}, torch {torch.__version__}"
