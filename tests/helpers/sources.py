"""What the sources say of themselves: which files import which, which parameters they read, which errors they raise."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from helpers.project import ROOT
from src.pipeline.params import Params

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]  # of the core
PIPELINES = [ROOT / "dvc.yaml", *sorted((ROOT / "src").rglob("dvc.yaml"))]
ERRORS = {"UserError", "SourceError", "Interrupted"}
WITHOUT_EFFECT = {"checkpoint_minutes"}  # read by a stage, but no result depends on it


class Stage(NamedTuple):
    """A stage of any ``dvc.yaml``, with paths from the project's root."""

    name: str
    main_file: str
    deps: set[str]
    params: set[str]


def all_stages() -> list[Stage]:
    """The stages of each ``dvc.yaml`` of the project."""
    return [
        read_stage(pipeline, name, values)
        for pipeline in PIPELINES
        for name, values in yaml.safe_load(pipeline.read_text())["stages"].items()
    ]


def read_stage(pipeline: Path, name: str, values: dict) -> Stage:
    """Read a stage as ``pipeline`` has it. Its command names its module last."""
    folder = (pipeline.parent / values.get("wdir", ".")).resolve()
    deps = {(folder / dep).resolve().relative_to(ROOT).as_posix() for dep in values["deps"]}
    module = values["cmd"].split()[-1].replace(".", "/")
    main_file = f"{module}.py" if (ROOT / f"{module}.py").exists() else f"{module}/__main__.py"
    params = set()
    for entry in values.get("params", []):
        for listed in entry.values() if isinstance(entry, dict) else [[entry]]:
            params |= set(Params.model_fields if listed is None else listed)  # the whole file is all of them
    return Stage(name, main_file, deps, params)


def source_files() -> list[str]:
    """All files of src/, by their paths from the project's root."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py"))


def room(file: str) -> str:
    """The room that a source file belongs to: its folder, or its own name, under src/."""
    return Path(file).parts[1]


def imported_by(file: str) -> set[str]:
    """The project's files that a source file imports by itself, anywhere in it."""
    files = {module.replace(".", "/") + ".py" for module in _modules(file) if module.partition(".")[0] == "src"}
    assert all((ROOT / name).exists() for name in files), f"{file}: write `from src.<package>.<file> import <name>`"
    return files


def packages_imported_by(file: str) -> set[str]:
    """The packages that are not the project's and that a source file imports, as Python calls them."""
    return {module.partition(".")[0] for module in _modules(file)} - {"src"}


def _modules(file: str) -> list[str]:
    modules = []
    for node in nodes_of(file):
        match node:
            case ast.Import(names=names):
                modules += [alias.name for alias in names]
            case ast.ImportFrom(module=module, level=level):
                assert module and not level, f"{file}: name the whole module, from src on"
                modules.append(module)
            case ast.Call(func=ast.Name(id="run"), args=[ast.Constant(value=str(module))]) if module.startswith("src."):
                modules.append(module)  # a stage's: __main__.py hands its name to src.pipeline.process
    return modules


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


def parameters_read(stage: Stage) -> set[str]:
    """The parameters that a stage's files read as ``params.<name>``; all of them where a loop runs over ``params``."""
    nodes = [node for file in closure(stage.main_file) for node in nodes_of(file)]
    loops = [node for node in nodes if isinstance(node, ast.For | ast.comprehension)]
    if any(ast.unparse(loop.iter) == "params" for loop in loops):
        return set(Params.model_fields)
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    names = {node.attr for node in attributes if ast.unparse(node.value) in ("params", "self._params")}
    return names & set(Params.model_fields) - WITHOUT_EFFECT


def messages_of_errors() -> list[str]:
    """Of each message that a user may meet, by the classes of `ERRORS`, the first part that is always the same."""
    nodes = [node for file in source_files() for node in nodes_of(file)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in ERRORS]
    messages = set()
    for call in calls:
        constants = [node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)]
        parts = [part.strip() for text in constants for part in re.split(r"[;:`(,]", str(text))]
        messages |= set([part for part in parts if len(part) > 7][:1])
    return sorted(messages)


def nodes_of(file: str) -> list[ast.AST]:
    """The syntax tree of a file as a list."""
    return list(ast.walk(ast.parse((ROOT / file).read_text())))
