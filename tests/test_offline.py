"""Nothing but ``download`` uses a network, and no library reports to its maker."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers.project import slow
from PIL import Image

COMMANDS = {
    "train": ("-m", "src.train"),
    "evaluate": ("-m", "src.evaluate"),
    "report": ("-m", "src.report"),
    "outliers": ("-m", "src.reader.outliers"),
    "export": ("-m", "src.reader.export"),
    "command": ("predict.py", "digit.png"),
    "command, with the ONNX file": ("predict.py", "--model", "models/model.onnx", "digit.png"),
}


@pytest.fixture(scope="module")
def strace() -> tuple[str, ...]:
    """What stands before a command so that its connections are written to a file; nothing where that can't be."""
    program = ("strace", "-f", "--seccomp-bpf", "-e", "trace=connect,sendto", "-o")
    works = shutil.which("strace") and subprocess.run([*program, os.devnull, "true"], check=False).returncode == 0
    return program if works else ()


@pytest.mark.parametrize("name", [name if "ONNX" in name or name == "export" else slow(name) for name in COMMANDS])
def test_it_asks_no_network_and_leaves_nothing_in_the_users_home(reader, tmp_path_factory, strace, digits, name):
    home, trace = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("trace") / "connections"
    Image.fromarray(255 - digits[0][0]).resize((140, 140)).save(reader.path / "digit.png")
    reader.set_params(epochs=0.1)
    variables = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}

    reader.run(*((*strace, str(trace)) if strace else ()), sys.executable, *COMMANDS[name], **variables)

    left = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert left <= {("cache", "matplotlib")}  # its list of fonts
    assert not strace or "AF_INET" not in trace.read_text()
