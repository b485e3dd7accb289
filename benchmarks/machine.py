"""The name of the machine that something is measured on: what a result's bits and seconds depend on."""

import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch


def machine_name(used: Mapping[str, object]) -> str:
    """Name this computer's processor, what is used of it, and the PyTorch that uses it.

    Args:
        used: ``Machine.describe()``, or a run's ``models/run.json``, which has the same and its version of PyTorch.
    """
    threads = f"{used['threads']} thread{'s' if used['threads'] != 1 else ''}"
    version = used.get("torch", torch.__version__)
    kind = f"{used['device']}, {used['precision']}, {threads}, {used['instructions']}"
    return f"{processor_name()}, {kind}, torch {version}"


def short_name(machine: str) -> str:
    """Shorten a machine's name for a sentence: "AMD EPYC (float32, 2 threads, AVX2)"."""
    processor, *parts = machine.split(", ")
    told = [part for part in parts if part != "cpu" and not part.startswith("torch ")]
    return f"{processor} ({', '.join(told)})" if told else processor


def processor_name() -> str:
    """Name the processor as the operating system does."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
