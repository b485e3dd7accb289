"""The house: which room may import which, and that each stage depends on what it imports and reads, on no more."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from helpers.project import ROOT

from src.pipeline.params import Params

PIPELINES = [ROOT / "dvc.yaml", *sorted((ROOT / "src").rglob("dvc.yaml"))]
CORE = yaml.safe_load(PIPELINES[0].read_text())["stages"]
WITHOUT_EFFECT = {"checkpoint_minutes"}  # read by a stage, but no result depends on it
SHARED = {"pipeline", "images", "pictures", "sampling", "weights", "resnet"}
MAY_IMPORT = {  # besides itself; a room that is not here has no place in the house yet
    "__init__.py": set(),
    "pipeline": set(),
    "images": {"pipeline"},
    "pictures": {"pipeline"},
    "sampling": {"pipeline", "images"},
    "weights": {"pipeline"},
    "resnet": {"pipeline"},
    **dict.fromkeys(CORE, SHARED),
    "predict": SHARED,
    "summary.py": {"pipeline", "report"},
    "reader": SHARED | set(CORE),
}


class Stage(NamedTuple):
    """A stage of any ``dvc.yaml``, with paths from the project's root."""

    name: str
    main_file: str
    deps: set[str]
    params: set[str]


def read_stage(pipeline: Path, name: str, values: dict) -> Stage:
    """Read a stage as ``pipeline`` has it. Its command names its module last."""
    folder = (pipeline.parent / values.get("wdir", ".")).resolve()
    deps = {(folder / dep).resolve().relative_to(ROOT).as_posix() for dep in values["deps"]}
    module = values["cmd"].split()[-1].replace(".", "/")
    params = values.get("params", [])
    listed = Params.model_fields if params == [{"params.yaml": None}] else params  # the whole file is all of them
    return Stage(name, f"{module}/__main__.py", deps, set(listed))


STAGES = [
    read_stage(pipeline, name, values)
    for pipeline in PIPELINES
    for name, values in yaml.safe_load(pipeline.read_text())["stages"].items()
]
each_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def imported_by(file: str) -> set[str]:
    """The project's files that a source file imports by itself, anywhere in it."""
    modules = []
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        match node:
            case ast.Import(names=names):
                modules += [alias.name for alias in names]
            case ast.ImportFrom(module=module, level=level):
                assert module and not level, f"{file}: name the whole module, from src on"
                modules.append(module)
            case ast.Call(func=ast.Name(id="run"), args=[ast.Constant(value=str(module))]):
                modules.append(module)  # a stage's: __main__.py hands its name to src.pipeline.process
    files = {module.replace(".", "/") + ".py" for module in modules if module.startswith("src.")}
    assert all((ROOT / name).exists() for name in files), f"{file}: write `from src.<package>.<file> import <name>`"
    return files


def closure(file: str) -> set[str]:
    """The source file, all that it imports, and all that these import."""
    found: set[str] = set()
    waiting = [file]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += imported_by(file)
    return found


def run_python(program: str) -> list[str]:
    """The lines that a program prints in a new process, started at the project's root."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("file", sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")))
def test_a_room_imports_itself_and_the_rooms_below_alone(file):
    room, *imported = [Path(each).parts[1] for each in (file, *imported_by(file))]

    assert set(imported) <= {room} | MAY_IMPORT[room]


@each_stage
def test_a_stage_runs_again_for_the_files_that_it_imports_and_for_no_other(stage):
    listed = [ROOT / dep for dep in stage.deps if dep.startswith("src/")]

    covered = {file for dep in listed for file in (dep.rglob("*.py") if dep.is_dir() else [dep])}

    assert {file.relative_to(ROOT).as_posix() for file in covered} == closure(stage.main_file)


def test_a_checkpoint_belongs_to_the_sources_that_the_stage_depends_on():
    program = "import src.train.stage; from src.pipeline import process; print(*process.imported_sources(), sep='\\n')"

    files = {Path(file).relative_to(ROOT).as_posix() for file in run_python(program)}

    assert files == closure("src/train/stage.py") | {"src/__init__.py"}


@each_stage
def test_a_stage_depends_on_each_parameter_that_it_reads(stage):
    code = "\n".join(ast.unparse(ast.parse((ROOT / file).read_text())) for file in closure(stage.main_file))
    read = set(re.findall(r"\b(?:self\._)?params\.(\w+)", code)) & set(Params.model_fields) - WITHOUT_EFFECT
    reads_all = re.search(r"\bfor .* in params\b(?!\.)", code)

    assert stage.params == (set(Params.model_fields) if reads_all else read)


def test_every_parameter_is_read_by_a_stage_and_explained():
    read = {name for stage in STAGES if stage.name != "report" for name in stage.params}
    explained = re.findall(r"^(\w+):.*  # ", (ROOT / "params.yaml").read_text(), re.M)

    assert "${launcher}" in CORE["train"]["cmd"]
    assert read | {"launcher"} == set(Params.model_fields) - WITHOUT_EFFECT
    assert set(explained) == set(Params.model_fields)


@pytest.mark.parametrize(("module", "package"), [("src.report.stage", "torch"), ("src.summary", "numpy")])
def test_a_process_that_needs_no_large_library_does_not_wait_for_it(module, package):
    assert run_python(f"import sys, {module}; print({package!r} in sys.modules)") == ["False"]
