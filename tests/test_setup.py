"""Setting up: the requirements files agree, and .venv is made, left alone, or mended."""

import os
import re
import shutil
import socket
import sys
import time
import zipfile
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

import pip
import pytest
from helpers.project import ROOT, Project, needs_posix, slow
from helpers.server import CLOSED
from uv import find_uv_bin

pytestmark = needs_posix
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch has one build")


def pins(name: str) -> dict[str, set[str]]:
    """The versions of each package in a requirements file and in those that it includes, as uv names packages."""
    text, found = (ROOT / name).read_text(), defaultdict(set)
    for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M):
        found[re.sub(r"[-_.]+", "-", package).lower()].add(version)  # PEP 503
    for included in re.findall(r"^-r (\S+)", text, re.M):
        found |= pins(included)
    return found


class Bare(Project):
    """What sets up, alone, with empty requirements, on a disk with 100 GB of space; packages come from ``index``."""

    def __init__(self, path: Path, index: str) -> None:
        super().__init__(path)
        self.index = index
        self.variables = {
            "PIP_INDEX_URL": f"{index}/pypi",
            "UV_CACHE_DIR": f"{path}/cache",
            "TORCH_CPU_INDEX": f"{index}/cpu",
        }
        self.require("# nothing")
        (path / "tools").mkdir(exist_ok=True)
        self.let_say("df", "echo header", "echo disk 0 0 ${FREE:-100}000000 0% /")

    def be_quick(self) -> "Bare":
        """Have `python3 -m venv` make an environment in no time: its pip is a link to this process's."""
        self.let_say(
            "python3",
            f'[ "$2" = venv ] || exec {sys.executable} "$@"',
            f'{sys.executable} -m venv --without-pip "$3"',
            f'ln -s {Path(pip.__file__).parent} "$3"/lib/python*/site-packages/',
        )
        return self

    def let_say(self, name: str, *lines: str) -> None:
        """Have a command be these lines of shell."""
        program = self.path / "tools" / name
        program.write_text("\n".join(("#!/bin/sh", *lines, "")))
        program.chmod(0o755)

    def require(self, *lines: str) -> None:
        """Have the requirements be these lines."""
        (self.path / "requirements.txt").write_text("\n".join((*lines, "")))

    def environment(self) -> dict[str, str]:
        known = {name: value for name, value in super().environment().items() if not name.startswith("PIP_")}
        path = f"{self.path / 'tools'}{os.pathsep}{known['PATH']}"
        return known | {"PIP_CONFIG_FILE": os.devnull, "PATH": path} | self.variables

    def has(self) -> dict[str, str]:
        """The packages in its environment."""
        found = (path.stem.split("-") for path in (self.path / ".venv/lib").glob("*/site-packages/*.dist-info"))
        return {name: version for name, version in found if name != "uv"}


ALL = {"torch": "2.0", "torchvision": "0.1", "nvidia_cublas": "13.0", "numpy": "2.4"}
CPU = {"torch": "2.0+cpu", "torchvision": "0.1+cpu"}
UV = find_uv_bin()
INDEX = {"pypi": ALL | {"uv": str(*pins("requirements-dev.in")["uv"])}, "cpu": CPU}  # as PyPI and PyTorch's are


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> str:
    """The URL of a folder with two indices. Their packages have no content, but for uv: it works."""
    indices = tmp_path_factory.mktemp("indices")
    for name, packages in INDEX.items():
        for package, version in packages.items():
            folder, info = indices / name / package.replace("_", "-"), f"{package}-{version}.dist-info"
            folder.mkdir(parents=True)
            wheel = folder / f"{package}-{version}-py3-none-any.whl"
            (folder / "index.html").write_text(f"<a href='{quote(wheel.name)}'>it</a>")
            with zipfile.ZipFile(wheel, "w") as file:
                file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
                file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                file.writestr(f"{info}/RECORD", "")
                if package == "uv":
                    file.writestr("uv/__main__.py", f"import os, sys\nos.execv({UV!r}, [{UV!r}, *sys.argv[1:]])\n")
    return indices.as_uri()


@pytest.fixture
def bare(tmp_path, published) -> Bare:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for file in (ROOT / "Makefile", *ROOT.glob("requirements*")):
        shutil.copy(file, tmp_path)
    return Bare(tmp_path, published).be_quick()


@pytest.fixture
def index(bare) -> str:
    """The URL of the indices, which have what `bare` now requires."""
    bare.require("torch==2.0", "torchvision==0.1", "numpy==2.4", "nvidia-cublas==13.0 ; sys_platform == 'linux'")
    return bare.index


@pytest.mark.parametrize("name", [f"requirements{which}" for which in ("", "-demo", "-search", "-dev")])
def test_compiled_requirements_are_those_of_their_source_and_the_largest_file_pins_the_same(name):
    direct, compiled = pins(f"{name}.in"), pins(f"{name}.txt")
    entries = re.findall(r"^([\w.-]+)==.*\n((?:    #.*\n)+)", (ROOT / f"{name}.txt").read_text(), re.M)

    assert {package: compiled.get(package) for package in direct} == direct, "run `make requirements`"
    assert {package for package, origin in entries if "-r requirements" in origin} == set(direct)
    assert pins("requirements-dev.txt").items() >= compiled.items()


@pytest.mark.parametrize(
    "damage",
    [
        slow("rm -r .venv/lib"),
        slow("ln -sf no/such/python .venv/bin/python"),
        slow('mkdir moved && mv .ci .venv Makefile requirements* moved && echo "moved"'),
    ],
)
def test_an_environment_is_made_once_and_mends_itself(bare, damage):
    (bare.path / "tools/python3").unlink()
    bare.run("make", "setup")
    assert bare.run("make", "setup").stdout == ""
    bare = Bare(bare.path / bare.run("sh", "-c", damage).stdout.strip(), bare.index)

    bare.run("make", "setup")

    done = bare.run(".venv/bin/pip", "--version")  # a script, whose first line names its Python
    assert str(bare.path / ".venv") in done.stdout


@pytest.mark.parametrize(
    "made",
    [
        "python3 -m venv .venv",
        "mkdir other && ln -s other .venv && python3 -m venv other && pwd >other/made-by-mnist-resnet",
    ],
    ids=["in the folder", "of another checkout, behind a link"],
)
def test_an_environment_made_by_hand_or_for_another_checkout_is_used(bare, made):
    bare.run("sh", "-c", f"{made} && touch '.venv/a file'")

    bare.run("make", "setup")

    assert bare.run("make", "setup").stdout == ""
    assert (bare.path / ".venv/a file").exists()


@pytest.mark.parametrize(
    "there",
    [
        "mkdir .venv && echo of the user >.venv/lib",
        "mkdir full && echo of the user >full/lib && ln -s full .venv",
        "ln -s no/such/folder .venv",
        "echo of the user >.venv",
    ],
)
def test_what_is_no_environment_and_not_made_by_the_setup_is_refused_and_left_alone(bare, fails, there):
    bare.run("sh", "-c", there)
    before = bare.run("find", "-L", ".venv", "-ls").stdout

    fails(bare.run("make", "setup", ok=False), ".venv", "move it away")

    assert bare.run("find", "-L", ".venv", "-ls").stdout == before


def test_an_environment_is_the_same_by_whichever_path_and_mending_it_says_so_and_keeps_other_files(bare):
    bare.run("sh", "-c", "mkdir tools/empty && ln -s tools/empty .venv && ln -s . link")
    bare.run("sh", "-c", "mkdir -p other/.venv/lib && touch other/.venv/made-by-mnist-resnet")
    bare.variables["CDPATH"] = f"{bare.path}/other"  # which may not lead there
    bare.run("make", "setup")
    assert bare.run("make", "-C", "link", "--no-print-directory", "setup").stdout == ""
    bare.run("sh", "-c", "touch '.venv/a file' && rm .venv/bin/python")

    assert "setup: .venv" in bare.run("make", "setup").stdout
    assert (bare.path / ".venv/a file").exists()
    assert (bare.path / "other/.venv/lib").is_dir()


def test_what_cannot_be_is_told_before_anything_is_installed(bare, index, fails):
    fails(bare.run("make", "PYTHON=python9.9", "setup", ok=False), "python9.9", "make PYTHON=python3.11")
    assert not (bare.path / ".venv").exists()

    fails(bare.run("make", "TORCH=gpu", "setup", ok=False), "TORCH=gpu")
    fails(bare.run("make", "setup", ok=False, FREE="1"), "1 GB are free here")
    assert bare.has() == {}


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

    said = bare.run("make", f"TORCH={torch}", "setup", TORCH_CPU_INDEX=where or f"{index}/cpu").stdout.splitlines()

    assert bare.has() == expected | {"numpy": "2.4"}
    assert len(said) == 2
    assert ("CPU" in said[0]) is (expected == CPU or where is not None)
    assert re.search(r"done in \d+ s", said[1])


@pytest.mark.parametrize(("settings", "installer"), [("", "uv"), slow("no-binary = six\n", "pip")])
def test_uv_installs_from_where_pip_is_told_to_and_where_it_may_not_pip_does(bare, index, settings, installer):
    bare.require("numpy==2.4")
    (bare.path / "pip.conf").write_text(
        f"[global]\nindex-url = {index}/nothing\n[install]\nextra-index-url = {CLOSED}\n    {CLOSED}two\n{settings}"
    )
    del bare.variables["PIP_INDEX_URL"]
    extra = f"{index}/more {index}/pypi"

    bare.run("make", "setup", PIP_CONFIG_FILE=f"{bare.path}/pip.conf", PIP_RETRIES="0", PIP_EXTRA_INDEX_URL=extra)

    assert bare.has() == {"numpy": "2.4"}
    (by,) = (bare.path / ".venv/lib").glob("*/site-packages/numpy-*/INSTALLER")
    assert by.read_text().strip() == installer


@needs_linux
def test_an_environment_keeps_its_build_of_pytorch_unless_another_is_asked_for(bare, index):
    bare.let_say("nvidia-smi", "echo GPU 0")
    bare.run("make", "TORCH=cpu", "setup")
    bare.run("sh", "-c", "echo '# a line' >>requirements.txt && make setup")
    assert bare.has() == CPU | {"numpy": "2.4"}

    bare.run("make", "TORCH=cuda", "setup")

    assert bare.has() == ALL
    assert bare.run("make", "setup").stdout == ""


@needs_linux
def test_an_index_that_does_not_answer_is_given_up_after_five_seconds_of_silence(bare, index):
    bare.let_say("nvidia-smi", "exit 9")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        bare.run("make", "setup", TORCH_CPU_INDEX=f"http://127.0.0.1:{silent.getsockname()[1]}")

    assert bare.has() == ALL
    assert 5 <= time.monotonic() - begin < 60


def test_where_pip_fails_its_last_lines_and_the_name_of_its_log_are_shown_and_the_next_try_goes_on(bare, index, fails):
    bare.require("numpy==3")
    fails(bare.run("make", "setup", ok=False), "numpy==3", ".venv/setup.log")
    bare.require("numpy==2.4")

    bare.run("make", "setup")

    assert bare.has() == {"numpy": "2.4"}
