"""The commands in README.md and docs/, typed as they stand: they print what the pages show."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documents import DOCUMENTS, blocks_of, brought_up_to_date, read
from helpers.project import ROOT, needs_posix
from PIL import Image, ImageDraw, ImageFont

BOUND = "=== the next command ==="
# The environment that is there stands for the one that `make` would set up.
BIN = shlex.quote(str(Path(sys.executable).parent))
PRELUDE = f"""set -e
exec 2>&1
make() {{ command make -o setup -o setup-demo -o setup-search -o setup-dev BIN={BIN} "$@"; }}
"""


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_print_what_it_shows_but_for_the_figures(document, trained_once, tmp_path, request):
    """In a clone after a run on the sample, with a Git remote; for the README, in the folder where it is cloned."""
    project, repository = trained_once.copy(tmp_path / "home" / "mnist-resnet"), tmp_path / "repository"
    (project.path / "photos").mkdir()
    for name, digit in (("photos/3.png", "3"), ("photos/5.jpg", "5"), ("digit.png", "5")):
        picture = Image.new("L", (200, 200), 240)
        font = ImageFont.load_default(160)
        ImageDraw.Draw(picture).text((100, 100), digit, fill=20, font=font, anchor="mm")
        picture.save(project.path / name)
    project.commit("pictures")
    project.run("git", "init", "--quiet", "--bare", "--initial-branch", "main", str(repository))
    project.run("git", "remote", "add", "origin", str(repository))
    project.run("git", "push", "--quiet", "--set-upstream", "origin", "main")

    blocks = [block for block in blocks_of(document) if block.is_run]
    commands = [command.replace("<this repository>", str(repository)) for block in blocks for command, _ in block.steps]
    script = PRELUDE + "".join(f"echo '{BOUND}'\n{command}\n" for command in commands)
    folder = tmp_path if document == "README.md" else project.path
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=project.environment(), capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stdout
    printed = iter(done.stdout.split(f"{BOUND}\n")[1:])
    page = read(document)
    for block in blocks:
        now = ""
        for command, shown in block.steps:
            lines = brought_up_to_date(shown, next(printed).splitlines())
            now += "".join(f"{line}\n" for line in (f"$ {command}", *lines))
        page = page.replace(f"```console\n{block.content}```", f"```console\n{now}```")

    if request.config.getoption("--write"):
        (ROOT / document).write_text(page, encoding="utf-8")


@needs_posix
@pytest.mark.slow
def test_what_is_left_without_reader_tools_and_pages_passes_its_tests(tmp_path):
    *_, block = blocks_of("docs/adapt.md")
    script = "\n".join([PRELUDE, f"git clone --quiet {shlex.quote(str(ROOT))} core && cd core", *dict(block.steps)])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}

    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3600
    )

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_block_of_commands_is_run_or_says_why_not(document):
    blocks = blocks_of(document)

    assert len(blocks) == sum(read(document).count(f"```{language}\n") for language in ("console", "python"))
    assert [command for block in blocks if not block.is_run for command, shown in block.steps if shown] == []


def test_a_line_is_brought_up_to_date_by_one_that_differs_in_figures_alone():
    printed = ["other", "lr   0.004  1a2b3c4", "file:///here/page"]

    assert brought_up_to_date(["lr 0.2 abcdef1", "file:///…/page"], printed) == [printed[1], "file:///…/page"]
    with pytest.raises(AssertionError, match="accuracy 3"):
        brought_up_to_date(["accuracy 3"], printed)
