"""The house: which room may import which, and that each stage depends on what it imports and reads, on no more."""

import re
import subprocess
import sys
from importlib import metadata

import pytest
from helpers.project import ROOT
from helpers.sources import (
    STAGES,
    WITHOUT_EFFECT,
    all_stages,
    closure,
    imported_by,
    packages_imported_by,
    parameters_read,
    room,
    source_files,
)

from src.pipeline.params import Params

SHARED = {"pipeline", "mnist", "sampling", "weights", "resnet"}
MAY_IMPORT = {  # besides itself; a room that is not here has no place in the house yet
    "__init__.py": set(),
    "pipeline": set(),
    "mnist": {"pipeline"},
    "sampling": {"pipeline", "mnist"},
    "weights": {"pipeline", "mnist"},
    "resnet": {"pipeline", "mnist"},
    **dict.fromkeys(STAGES, SHARED),
    "summary.py": {"pipeline", "report"},
    "reader": SHARED | set(STAGES),
}
each_stage = pytest.mark.parametrize("stage", all_stages(), ids=lambda stage: stage.name)


def run_python(program: str) -> list[str]:
    """The lines that a program prints in a new process, started at the project's root."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("file", source_files())
def test_a_room_imports_itself_and_the_rooms_below_alone(file):
    imported = {room(other) for other in imported_by(file)}

    assert imported <= {room(file)} | MAY_IMPORT[room(file)]


@each_stage
def test_a_stage_runs_again_for_the_files_that_it_imports_and_for_no_other(stage):
    listed = [ROOT / dep for dep in stage.deps if dep.startswith("src/")]

    covered = {file for dep in listed for file in (dep.rglob("*.py") if dep.is_dir() else [dep])}

    assert {file.relative_to(ROOT).as_posix() for file in covered} == closure(stage.main_file)


def test_what_each_import_runs_besides_is_empty():
    assert (ROOT / "src/__init__.py").read_text() == ""


def test_a_checkpoint_belongs_to_the_sources_that_the_stage_depends_on():
    # The main file as `python -m src.train` runs it, with something else to do once the stage is imported.
    program = (
        "import importlib, runpy\n"
        "from src.pipeline import process\n"
        "def run(module):\n"
        "    importlib.import_module(module)\n"
        "    print(*(file.relative_to(process.ROOT).as_posix() for file in process.imported_sources()), sep='\\n')\n"
        "process.run = run\n"
        "runpy.run_module('src.train', run_name='__main__', alter_sys=True)\n"
    )

    assert set(run_python(program)) == closure("src/train/__main__.py") | {"src/__init__.py"}


@each_stage
def test_a_stage_depends_on_each_parameter_that_it_reads(stage):
    assert stage.params == parameters_read(stage)


def test_every_parameter_is_read_by_a_stage_and_explained():
    read = {name for stage in all_stages() if stage.name != "report" for name in stage.params}  # it shows them all
    lines = [line for line in (ROOT / "params.yaml").read_text().splitlines() if re.match(r"\w", line)]
    explained = {line.partition(":")[0] for line in lines if "  # " in line}

    assert "${launcher}" in STAGES["train"]["cmd"]
    assert read | {"launcher"} == set(Params.model_fields) - WITHOUT_EFFECT
    assert explained == set(Params.model_fields)


@pytest.mark.parametrize(("module", "package"), [("src.report.stage", "torch"), ("src.summary", "numpy")])
def test_a_process_that_needs_no_large_library_does_not_wait_for_it(module, package):
    assert run_python(f"import sys, {module}; print({package!r} in sys.modules)") == ["False"]


def test_each_package_that_the_sources_import_is_listed_as_a_direct_dependency():
    text = "".join((ROOT / name).read_text() for name in ("requirements.in", "requirements-demo.in"))
    listed = {name.lower() for name in re.findall(r"^([\w.-]+)(?:\[.*\])?==", text, re.M)}
    belongs_to = metadata.packages_distributions()

    imported = {name for file in source_files() for name in packages_imported_by(file)} - sys.stdlib_module_names

    assert "torch" in imported
    assert [
        name for name in sorted(imported) if not {of.lower().replace("_", "-") for of in belongs_to[name]} & listed
    ] == []
