"""What the sources say of themselves: which files import which, which parameters they read, how long they are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from helpers.project import ROOT
from src.pipeline.params import Params

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ERRORS = {"UserError", "SourceError", "Interrupted"}
WITHOUT_EFFECT = {"checkpoint_minutes"}  # read by a stage, but no result depends on it


def source_files() -> list[str]:
    """All files of src/, by their paths from the project's root."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py"))


def room(file: str) -> str:
    """The room that a source file belongs to: its folder under src/."""
    return Path(file).parts[1]


def main_file(stage: str) -> str:
    """The file that ``python -m src.<stage>`` runs."""
    return f"src/{stage}/__main__.py"


def imported_by(file: str) -> set[str]:
    """The project's files that a source file imports by itself."""
    files = {module.replace(".", "/") + ".py" for module in _modules(file) if module.partition(".")[0] == "src"}
    assert all((ROOT / name).exists() for name in files), f"{file}: write `from src.<package>.<file> import <name>`"
    return files


def packages_imported_by(file: str) -> set[str]:
    """The packages that are not the project's and that a source file imports, as Python calls them."""
    return {module.partition(".")[0] for module in _modules(file)} - {"src"}


def _modules(file: str) -> list[str]:
    modules = [alias.name for node in nodes_of(file) if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes_of(file):
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file}: name the whole module, from src on"
            modules.append(node.module)
    return modules


def files_of_stage(stage: str) -> set[str]:
    """All source files that a stage runs, those included that are imported by what it imports."""
    found: set[str] = set()
    waiting = [main_file(stage)]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += imported_by(file)
    return found


def parameters_listed(stage: str) -> set[str]:
    """The parameters that dvc.yaml lists for a stage; the whole file is all of them."""
    listed = STAGES[stage]["params"]
    return set(Params.model_fields) if listed == [{"params.yaml": None}] else set(listed)


def parameters_read(stage: str) -> set[str]:
    """The parameters that a stage's files read as ``params.<name>``; all of them where a loop runs over ``params``."""
    nodes = [node for file in files_of_stage(stage) for node in nodes_of(file)]
    loops = [node for node in nodes if isinstance(node, ast.For | ast.comprehension)]
    if any(ast.unparse(loop.iter) == "params" for loop in loops):
        return set(Params.model_fields)
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    names = {node.attr for node in attributes if ast.unparse(node.value) in ("params", "self._params")}
    return names & set(Params.model_fields) - WITHOUT_EFFECT


def functions_of(file: str) -> Iterator[tuple[str, int]]:
    """Each function of a file with the number of its arguments, ``self`` and ``cls`` left out."""
    for node in nodes_of(file):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield node.name, len([argument for argument in arguments if argument.arg not in ("self", "cls")])


def main_length(file: str) -> int:
    """The number of lines of a file's ``main``."""
    (main,) = (node for node in nodes_of(file) if isinstance(node, ast.FunctionDef) and node.name == "main")
    return main.end_lineno - main.lineno + 1


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
