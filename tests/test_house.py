"""The house: which room may import which, and how long things may get."""

import json
import re
import subprocess
import sys
from importlib import metadata

import pytest
from helpers.project import ROOT
from helpers.sources import (
    STAGES,
    files_of_stage,
    functions_of,
    imported_by,
    main_file,
    main_length,
    packages_imported_by,
    parameters_listed,
    parameters_read,
    room,
    source_files,
)

SHARED = ("pipeline", "mnist", "resnet")  # each may import those before it; the stages and `predict` all of them


def rooms_below(name: str) -> set[str]:
    """The rooms that a room may import besides itself."""
    floor = SHARED.index(name) if name in SHARED else len(SHARED)
    return set(SHARED[:floor])


@pytest.mark.parametrize("file", source_files())
def test_a_room_imports_itself_and_the_rooms_below_alone(file):
    allowed = {room(file)} | rooms_below(room(file))

    imported = {room(other) for other in imported_by(file)}

    assert imported <= allowed


@pytest.mark.parametrize("file", source_files())
def test_nobody_imports_a_stages_main_file(file):
    mains = {main_file(stage) for stage in STAGES} | {main_file("predict")}

    assert not imported_by(file) & mains


@pytest.mark.parametrize("file", source_files())
def test_no_file_is_longer_than_200_lines(file):
    assert len((ROOT / file).read_text().splitlines()) <= 200


@pytest.mark.parametrize("file", source_files())
def test_no_function_takes_more_than_five_arguments(file):
    assert [name for name, arguments in functions_of(file) if arguments > 5] == []


@pytest.mark.parametrize("stage", STAGES)
def test_the_main_of_a_stage_fits_on_a_screen(stage):
    assert main_length(main_file(stage)) <= 50


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_rooms_that_its_files_lie_in(stage):
    rooms = {file.rpartition("/")[0] for file in files_of_stage(stage)}

    listed = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}

    assert listed == rooms


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_each_parameter_that_it_reads(stage):
    assert parameters_listed(stage) == parameters_read(stage)


def test_each_package_that_the_sources_import_is_listed_as_a_direct_dependency():
    text = "".join((ROOT / name).read_text() for name in ("requirements.in", "requirements-demo.in"))
    listed = {name.lower() for name in re.findall(r"^([\w.-]+)==", text, re.M)}
    belongs_to = metadata.packages_distributions()

    imported = {name for file in source_files() for name in packages_imported_by(file)} - sys.stdlib_module_names

    assert "torch" in imported
    assert [
        name for name in sorted(imported) if not {of.lower().replace("_", "-") for of in belongs_to[name]} & listed
    ] == []


@pytest.mark.slow
def test_importing_the_rooms_changes_nothing_of_the_process():
    modules = [file.removesuffix(".py").replace("/", ".") for file in source_files() if "__init__" not in file]
    program = (
        "import importlib, json, os, signal, sys, torch\n"
        "def state():\n"
        "    handlers = [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)]\n"
        "    deterministic = torch.are_deterministic_algorithms_enabled()\n"
        "    hook = sys.excepthook is sys.__excepthook__\n"
        "    return [hook, handlers, deterministic, torch.get_num_threads(), os.getcwd()]\n"
        "before = state()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps([before, state()]))\n"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    before, after = json.loads(done.stdout)
    assert after == before
