"""The machine that something is measured on."""

import platform
import re
from pathlib import Path


def processor_name() -> str:
    """As the operating system calls it."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()
