"""Setting up: the requirements files agree, and .venv is made, left alone, or mended."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT, Project, needs_posix, slow

pytestmark = needs_posix


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
        (path / "requirements.txt").write_text("# nothing\n")
        (path / "tools").mkdir(exist_ok=True)
        self.let_be_free(100)

    def be_quick(self) -> None:
        """Have `python3 -m venv` make, in no time, what does as this process's Python does."""
        program = self.path / "tools/python3"
        make = 'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"'
        program.write_text(f'#!/bin/sh\n[ "$2" != venv ] || {{ {make}; exit; }}\nexec {sys.executable} "$@"\n')
        program.chmod(0o755)

    def let_be_free(self, gigabytes: int) -> None:
        """Have `df` say so."""
        program = self.path / "tools/df"
        program.write_text(f"#!/bin/sh\necho header\necho disk 0 0 {gigabytes}000000 0% /\n")
        program.chmod(0o755)

    def environment(self) -> dict[str, str]:
        known = super().environment()
        return known | {"PATH": f"{self.path / 'tools'}{os.pathsep}{known['PATH']}"}


@pytest.fixture
def bare(project: Project) -> Bare:
    return Bare(project.path)


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
    bare.run("python3", "-m", "venv", ".venv")
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


def test_a_disk_that_is_too_small_or_a_python_that_is_not_there_is_told_before_anything_is_installed(bare, fails):
    fails(bare.run("make", "PYTHON=python9.9", "setup", ok=False), "python9.9", "make PYTHON=python3.11")
    bare.let_be_free(1)
    fails(bare.run("make", "setup", ok=False), "1 GB are free here")

    assert not (bare.path / ".venv").exists()
