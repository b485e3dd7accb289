"""README.md and docs/ say what is so: their links and paths lead somewhere, their messages are those of the sources."""

import ast
import os
import re
from pathlib import Path

import pytest
from helpers.documents import DOCUMENTS, anchors_of, links_of, prose_of, read
from helpers.project import ROOT

PATH = re.compile(r"`((?:\.ci|\.github|benchmarks|data|docs|metrics|models|release|reproductions|src|tests)/[\w./-]+)`")
ERRORS = {"UserError", "SourceError", "Interrupted"}
DVC_FILES = [ROOT / "dvc.yaml", *ROOT.glob("src/*/dvc.yaml")]  # all write their paths from the project's root
RESULTS = {word for file in DVC_FILES for word in re.split(r"[\s:]+", file.read_text())}


def exists(path: str) -> bool:
    """Whether a file or folder of the project is there, or will be once the workflow has run."""
    return (ROOT / path).exists() or path in RESULTS


def messages_of_errors() -> list[str]:
    """Of each message that a user may meet, by the classes of `ERRORS`, the first part that is always the same."""
    messages = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ERRORS:
                texts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
                parts = [part.strip() for text in texts for part in re.split(r"[;:`(,]", str(text))]
                messages |= set([part for part in parts if len(part) > 7][:1])
    return sorted(messages)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_link_and_each_path_leads_to_what_is_there(document):
    broken = [path for path in PATH.findall(prose_of(document)) if not exists(path)]
    for target in links_of(document):
        path, _, anchor = target.partition("#")
        file = Path(os.path.normpath(Path(document).parent / path)).as_posix() if path else document
        if not exists(file) or (anchor and anchor not in anchors_of(file)):
            broken.append(target)

    assert broken == []


def test_the_readme_leads_to_each_page():
    linked = {target.partition("#")[0] for target in links_of("README.md")}

    assert set(DOCUMENTS) - linked == {"README.md"}


@pytest.mark.parametrize("message", messages_of_errors())
def test_each_message_of_a_stage_is_in_troubleshooting(message):
    assert message in read("docs/troubleshooting.md")


@pytest.mark.slow
def test_after_a_refused_experiment_the_command_of_the_page_brings_the_parameters_back_ten_times(project):
    (command,) = set(re.findall(r"`(touch [^`]+)`", project.read("docs/troubleshooting.md")))
    before = project.read("params.yaml")
    assert "lr: 0.004" in before

    for _ in range(10):
        project.run("dvc", "exp", "run", "-S", "lr=7.004", ok=False)  # DVC leaves it there, and no byte longer
        assert "lr: 7.004" in project.read("params.yaml")
        project.run("sh", "-c", command)
        assert project.read("params.yaml") == before
