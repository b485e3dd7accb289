"""Setting up: the requirements files agree, and .venv is made, left alone, or mended."""

import io
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote, unquote

import pip
import pytest
from helpers.project import ROOT, Project, needs_posix, slow
from helpers.server import CLOSED, Server, send, serve, write
from uv import find_uv_bin

pytestmark = needs_posix
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch has one build")


def pins(name: str) -> dict[str, set[str]]:
    """The versions of each package in a requirements file and in those that it includes, as uv names packages."""
    text = (ROOT / name).read_text()
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M):
        found.setdefault(re.sub(r"[-_.]+", "-", package).lower(), set()).add(version)  # PEP 503
    for included in re.findall(r"^-r (\S+)", text, re.M):
        found |= pins(included)
    return found


class Bare(Project):
    """A clone whose requirements are empty, so that setting up takes seconds, on a disk with 100 GB of space."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.variables: dict[str, str] = {}
        (path / "requirements.txt").write_text("# nothing\n")
        (path / "tools").mkdir(exist_ok=True)
        self.let_be_free(100)

    def be_quick(self) -> None:
        """Have `python3 -m venv` make an environment in no time: its pip is a link to this process's."""
        self.let_say(
            "python3",
            f'[ "$2" = venv ] || exec {sys.executable} "$@"',
            f'{sys.executable} -m venv --without-pip "$3"',
            f'ln -s {Path(pip.__file__).parent} "$3"/lib/python*/site-packages/',
        )

    def let_be_free(self, gigabytes: int) -> None:
        """Have `df` say so."""
        self.let_say("df", "echo header", f"echo disk 0 0 {gigabytes}000000 0% /")

    def let_say(self, name: str, *lines: str) -> None:
        """Have a command be these lines of shell."""
        program = self.path / "tools" / name
        program.write_text("\n".join(("#!/bin/sh", *lines, "")))
        program.chmod(0o755)

    def environment(self) -> dict[str, str]:
        known = {name: value for name, value in super().environment().items() if not name.startswith("PIP_")}
        return (
            known
            | {"PIP_CONFIG_FILE": os.devnull}
            | {"PATH": f"{self.path / 'tools'}{os.pathsep}{known['PATH']}"}
            | self.variables
        )

    def has(self) -> dict[str, str]:
        """The packages in its environment."""
        found = (path.stem.split("-") for path in (self.path / ".venv/lib").glob("*/site-packages/*.dist-info"))
        return {name: version for name, version in found if name != "uv"}


@pytest.fixture
def bare(project: Project) -> Bare:
    return Bare(project.path)


def wheel(name: str, version: str) -> bytes:
    """A package without content, but for uv: that is the one which is there."""
    content, info = io.BytesIO(), f"{name}-{version}.dist-info"
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
        if name == "uv":
            file.writestr("uv/__main__.py", f"import os, sys\nos.execv({UV!r}, [{UV!r}, *sys.argv[1:]])\n")
    return content.getvalue()


UV = find_uv_bin()
INDEX = {  # of an index on the web: PyPI's, and beside it that of PyTorch's CPU build
    "pypi": {"torch": "2.0", "torchvision": "0.1", "nvidia_cublas": "13.0", "numpy": "2.4"}
    | {"uv": str(*pins("requirements-dev.in")["uv"])},
    "cpu": {"torch": "2.0+cpu", "torchvision": "0.1+cpu"},
}


@pytest.fixture
def index(bare) -> Iterator[Server]:
    """A server of tiny packages, which `bare` asks for."""

    def respond(handler: BaseHTTPRequestHandler, _: int) -> None:
        _, name, package, *file = unquote(handler.path).split("/")
        package = package.replace("-", "_")
        version = INDEX.get(name, {}).get(package)
        if version is None:
            handler.send_error(404)
        elif file == [""]:
            handler.send_response(200)
            handler.send_header("Content-Type", "text/html")
            handler.end_headers()
            handler.wfile.write(f"<a href='{quote(f'{package}-{version}-py3-none-any.whl')}'>it</a>".encode())
        else:
            send(handler, wheel(package, version))

    pins = "torch==2.0\ntorchvision==0.1\nnumpy==2.4\nnvidia-cublas==13.0 ; sys_platform == 'linux'\n"
    (bare.path / "requirements.txt").write_text(pins)
    bare.be_quick()
    with serve(respond) as server:
        bare.variables = {
            "PIP_INDEX_URL": f"{server.address}/pypi",
            "UV_CACHE_DIR": f"{bare.path}/cache",
            "TORCH_CPU_INDEX": f"{server.address}/cpu",
        }
        yield server


@pytest.mark.parametrize(
    ("name", "larger"),
    [
        ("requirements", ["requirements-demo", "requirements-dev"]),
        ("requirements-demo", ["requirements-dev"]),
        ("requirements-dev", []),
    ],
)
def test_compiled_requirements_are_those_of_their_source_and_the_larger_files_pin_the_same(name, larger):
    direct, compiled = pins(f"{name}.in"), pins(f"{name}.txt")
    entries = re.findall(r"^([\w.-]+)==.*\n((?:    #.*\n)+)", (ROOT / f"{name}.txt").read_text(), re.M)

    assert {package: compiled.get(package) for package in direct} == direct, "run `make requirements`"
    assert {package for package, origin in entries if "-r requirements" in origin} == set(direct)
    for other in larger:
        assert pins(f"{other}.txt").items() >= compiled.items()


@pytest.mark.parametrize("damage", [slow(damage) for damage in ("none", "half made", "python gone", "moved")])
def test_an_environment_is_made_once_and_mends_itself(bare, damage):
    bare.run("make", "setup")
    if damage == "none":
        assert bare.run("make", "setup").stdout == ""
    elif damage == "half made":
        shutil.rmtree(bare.path / ".venv/lib")
    elif damage == "python gone":
        (bare.path / ".venv/bin/python").unlink()
        (bare.path / ".venv/bin/python").symlink_to("no/such/python")
    else:
        bare = Bare(bare.path.rename(bare.path.with_name("moved")))

    bare.run("make", "setup")

    done = bare.run(".venv/bin/pip", "--version")  # a script, whose first line names its Python
    assert str(bare.path) in done.stdout


@pytest.mark.parametrize("where", ["in the folder", "behind a link", "of another checkout"])
def test_an_environment_made_by_hand_or_for_another_checkout_is_used(bare, tmp_path_factory, where):
    bare.be_quick()
    folder = bare.path / ".venv"
    if where != "in the folder":
        folder.symlink_to(tmp_path_factory.mktemp("elsewhere"))
    bare.run("python3", "-m", "venv", str(folder.resolve()))
    (folder / "a file").touch()
    if where == "of another checkout":
        (folder / "location").write_text(f"{folder.resolve().parent}\n")

    bare.run("make", "setup")

    assert bare.run("make", "setup").stdout == ""
    assert (folder / "a file").exists()


@pytest.mark.parametrize("there", ["a full folder", "a link to one", "a link to nothing", "a file"])
def test_what_is_no_environment_and_not_made_by_the_setup_is_refused_and_left_alone(
    bare, tmp_path_factory, fails, there
):
    folder = bare.path / ".venv"
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "lib").write_text("of the user's")
    if there == "a full folder":
        other.rename(folder)
    elif there == "a file":
        (other / "lib").rename(folder)
    else:
        folder.symlink_to(other if there == "a link to one" else "no such folder")
    before = sorted(str(path) for path in [folder, *folder.rglob("*")])

    fails(bare.run("make", "setup", ok=False), ".venv", "move it away")

    assert sorted(str(path) for path in [folder, *folder.rglob("*")]) == before


def test_an_environment_is_the_same_by_whichever_path_and_mending_it_says_so_and_keeps_other_files(bare):
    bare.be_quick()
    (bare.path / ".venv").symlink_to(bare.path / "tools/empty")
    (bare.path / "tools/empty").mkdir()
    bare.run("make", "setup")
    (bare.path / "link").symlink_to(".")
    assert bare.run("sh", "-c", "cd link && PYTHON=python3 .ci/setup requirements.txt").stdout == ""
    (bare.path / ".venv/a file").touch()
    (bare.path / ".venv/bin/python").unlink()

    done = bare.run("make", "setup")

    assert "setup: .venv" in done.stdout
    assert (bare.path / ".venv/a file").exists()


def test_a_disk_that_is_too_small_or_a_python_that_is_not_there_is_told_before_anything_is_installed(
    bare, index, fails
):
    fails(bare.run("make", "PYTHON=python9.9", "setup", ok=False), "python9.9", "make PYTHON=python3.11")
    assert not (bare.path / ".venv").exists()

    bare.let_be_free(1)
    fails(bare.run("make", "setup", ok=False), "1 GB are free here")
    assert bare.has() == {}


ALL = {"torch": "2.0", "torchvision": "0.1", "nvidia_cublas": "13.0", "numpy": "2.4"}
CPU = {"torch": "2.0+cpu", "torchvision": "0.1+cpu", "numpy": "2.4"}


@needs_linux
@pytest.mark.parametrize(
    ("gpu", "torch", "where", "expected"),
    [
        (False, "", None, CPU),
        slow(True, "", None, ALL),
        slow(False, "", CLOSED, ALL),
        slow(False, "cuda", None, ALL),
        slow(True, "cpu", None, CPU),
    ],
    ids=["no GPU", "a GPU", "no GPU and no index of CPU builds", "CUDA asked for", "CPU asked for"],
)
def test_without_an_nvidia_gpu_the_cpu_build_is_taken_where_it_can_be_had(bare, index, gpu, torch, where, expected):
    bare.let_say("nvidia-smi", "echo GPU 0" if gpu else "exit 9")
    bare.variables |= {"TORCH_CPU_INDEX": where} if where else {}

    said = bare.run("make", f"TORCH={torch}", "setup").stdout.splitlines()

    assert bare.has() == expected
    assert len(said) == 2
    assert ("CPU" in said[0]) is (expected == CPU or where is not None)
    assert re.search(r"done in \d+ s", said[1])


@pytest.mark.parametrize("installer", ["uv", slow("pip")])
def test_uv_installs_from_where_pip_is_told_to_and_where_it_may_not_pip_does(bare, index, installer):
    settings = (
        f"[global]\nindex-url = {index.address}/nothing\n[install]\nextra-index-url = {CLOSED}\n    {CLOSED}two\n"
    )
    if installer == "pip":
        settings += "no-binary = six\n"
    (bare.path / "requirements.txt").write_text("numpy==2.4\n")
    (bare.path / "pip.conf").write_text(settings)
    bare.variables |= {"PIP_CONFIG_FILE": f"{bare.path}/pip.conf", "PIP_RETRIES": "0"}
    bare.variables |= {"PIP_EXTRA_INDEX_URL": f"{index.address}/more {index.address}/pypi"}
    del bare.variables["PIP_INDEX_URL"]

    bare.run("make", "setup")

    assert bare.has() == {"numpy": "2.4"}
    (by,) = (bare.path / ".venv/lib").glob("*/site-packages/numpy-*/INSTALLER")
    assert by.read_text().strip() == installer


@needs_linux
def test_an_environment_keeps_its_build_of_pytorch_unless_another_is_asked_for(bare, index):
    bare.let_say("nvidia-smi", "echo GPU 0")
    bare.run("make", "TORCH=cpu", "setup")
    with (bare.path / "requirements.txt").open("a") as file:
        file.write("# a line\n")
    bare.run("make", "setup")
    assert bare.has() == CPU

    bare.run("make", "TORCH=cuda", "setup")

    assert bare.has() == ALL
    assert bare.run("make", "setup").stdout == ""


@needs_linux
def test_an_index_that_does_not_answer_is_given_up_after_five_seconds(bare, index):
    bare.let_say("nvidia-smi", "exit 9")
    with serve(write(b"", pause=60)) as silent:
        bare.variables |= {"TORCH_CPU_INDEX": silent.address}
        begin = time.monotonic()
        bare.run("make", "setup")

    assert bare.has() == ALL
    assert 5 <= time.monotonic() - begin < 30


@pytest.mark.parametrize("known", [True, False], ids=["a package of another version", "TORCH misspelt"])
def test_where_pip_fails_its_last_lines_and_the_name_of_its_log_are_shown_and_the_next_try_goes_on(
    bare, index, fails, known
):
    (bare.path / "requirements.txt").write_text("numpy==3\n")

    done = bare.run("make", f"TORCH={'' if known else 'gpu'}", "setup", ok=False)

    if known:
        fails(done, "numpy==3", ".venv/setup.log")
        (bare.path / "requirements.txt").write_text("numpy==2.4\n")
        bare.run("make", "setup")
        assert bare.has() == {"numpy": "2.4"}
    else:
        fails(done, "TORCH=gpu")
