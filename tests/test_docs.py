"""README.md and docs/ say what is so: their links and paths lead somewhere, their messages and examples are real."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documents import DOCUMENTS, anchors_of, links_of, prose_of, read
from helpers.pictures import drawing
from helpers.project import ROOT
from helpers.sources import STAGES, messages_of_errors
from PIL import Image

from release.docs import fill

RESULTS = [
    next(iter(out)) if isinstance(out, dict) else out
    for stage in STAGES.values()
    for kind in ("outs", "metrics", "plots")
    for out in stage.get(kind, [])
]
LATER = {"benchmarks/seeds.json"}  # what a maintainer's command may write
PATH = re.compile(r"`((?:\.ci|\.github|benchmarks|data|docs|metrics|models|release|src|tests)/[\w./-]+)`")


def exists(path: str) -> bool:
    """Whether a file or folder of the project is there, or will be once the workflow has run."""
    return (ROOT / path).exists() or path in LATER or any(Path(path).is_relative_to(result) for result in RESULTS)


def test_the_readme_is_read_in_three_minutes():
    assert len(read("README.md").splitlines()) <= 130


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_link_leads_to_a_file_and_a_heading_of_it(document):
    folder = Path(document).parent
    broken = []
    for _, _, target in links_of(document):
        path, _, anchor = target.partition("#")
        file = Path(os.path.normpath(folder / path)).as_posix() if path else document
        if not exists(file) or (anchor and anchor not in anchors_of(file)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_path_in_the_text_is_there(document):
    assert [path for path in PATH.findall(prose_of(document)) if not exists(path)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_picture_has_a_text_and_shows_on_a_dark_page(document):
    pictures = [(text, Path(document).parent / target) for bang, text, target in links_of(document) if bang]

    assert [path for text, path in pictures if len(text) < 20] == []
    for path in (ROOT / path for _, path in pictures if (ROOT / path).exists()):
        assert Image.open(path).convert("RGBA").getextrema()[3] == (255, 255), f"{path} is not opaque"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_line_begins_with_a_marker_and_goes_on_which_would_be_html_to_github(document):
    assert re.findall(r"^<!-- .* -->.*\w.*$", re.sub(r"^<!-- .* -->$", "", read(document), flags=re.M), re.M) == []


def test_the_readme_leads_to_each_page():
    linked = {target.partition("#")[0] for _, _, target in links_of("README.md")}

    assert set(DOCUMENTS) - linked == {"README.md"}


@pytest.mark.parametrize("message", messages_of_errors())
def test_each_message_of_a_stage_is_in_troubleshooting(message):
    assert message in read("docs/troubleshooting.md")


def test_the_onnx_example_of_the_docs_is_twelve_lines_that_run_without_this_project(trained_once, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", read("docs/use.md"), re.DOTALL)
    (tmp_path / "models").mkdir()
    shutil.copy(trained_once.path / "models/model.onnx", tmp_path / "models")
    drawing().save(tmp_path / "digit.png")
    absent = "import sys; sys.modules |= dict.fromkeys(('torch', 'torchvision', 'src'))\n"  # an import of them fails

    done = subprocess.run(
        [sys.executable, "-I", "-c", absent + example], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert len(example.splitlines()) <= 12
    assert re.match(r"\d ", done.stdout)


def test_a_fact_is_put_in_its_place_and_the_rest_stays():
    facts = {"number": lambda: "2", "table": lambda: "| a |\n| b |", "nothing": lambda: ""}
    text = (
        "one <!-- number -->1<!-- /number -->.\n<!-- table -->\nold\n<!-- /table -->\n"
        "<!-- nothing -->\nx\n<!-- /nothing -->\n"
    )

    filled = fill(text, facts)

    assert filled == (
        "one <!-- number -->2<!-- /number -->.\n<!-- table -->\n| a |\n| b |\n<!-- /table -->\n"
        "<!-- nothing -->\n<!-- /nothing -->\n"
    )
    assert fill(filled, facts) == filled
