"""Nothing but ``download`` uses a network, and no library reports to its maker."""

import re
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


@pytest.fixture
def addresses(tmp_path_factory):
    """A function that runs a command and gives the addresses that it or a process of it connected to."""
    strace = shutil.which("strace")
    if not strace or subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs strace, and the right to use it")
    folder = tmp_path_factory.mktemp("trace")

    def run(project, *command: str, **variables: str) -> list[str]:
        trace = folder / "connections"
        project.run(strace, "-f", "-e", "trace=connect,sendto", "-o", str(trace), *command, **variables)
        return re.findall(r"AF_INET6?, .*", trace.read_text())

    return run


@pytest.mark.parametrize("name", [name if "ONNX" in name or name == "export" else slow(name) for name in COMMANDS])
def test_it_asks_no_network_and_leaves_nothing_in_the_users_home(reader, tmp_path_factory, addresses, digits, name):
    home = tmp_path_factory.mktemp("home")
    Image.fromarray(255 - digits[0][0]).resize((140, 140)).save(reader.path / "digit.png")
    reader.set_params(epochs=0.1)
    variables = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}

    asked = addresses(reader, sys.executable, *COMMANDS[name], **variables)

    left = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert asked == []
    assert left <= {("cache", "matplotlib")}  # its list of fonts
