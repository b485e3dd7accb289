"""The commands in README.md and docs/, typed as they stand: they print what the pages show."""

import pytest
from helpers.documents import DOCUMENTS, Step, blocks_of, brought_up_to_date, read, replace_block
from helpers.pictures import drawing
from helpers.project import needs_posix
from helpers.terminal import Terminal

BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


@pytest.fixture
def terminal_of(trained_once, tmp_path):
    """A terminal for a document: in a clone after a run on the sample; for the README, where it is to be cloned."""

    def start(document: str) -> Terminal:
        project, repository = trained_once.copy(tmp_path / "home" / "mnist-resnet"), tmp_path / "repository"
        photos = project.path / "photos"
        photos.mkdir()
        drawing(digit="3").save(photos / "3.png")
        drawing().save(photos / "5.jpg")
        drawing().save(project.path / "digit.png")
        project.commit("pictures")
        project.run("git", "init", "--quiet", "--bare", "--initial-branch", "main", str(repository))
        project.run("git", "remote", "add", "origin", str(repository))
        project.run("git", "push", "--quiet", "--set-upstream", "origin", "main")
        return Terminal(project, tmp_path if document == "README.md" else project.path, repository)

    return start


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_print_what_it_shows_but_for_the_figures(document, terminal_of, request):
    terminal = terminal_of(document)
    for block in blocks_of(document):
        if block.not_run is None:
            printed = terminal.type(block.steps)

            now = [
                Step(step.command, brought_up_to_date(step.shown, lines))
                for step, lines in zip(block.steps, printed, strict=True)
            ]

            if request.config.getoption("--write"):
                content = "".join(f"$ {step.command}\n" + "".join(f"{line}\n" for line in step.shown) for step in now)
                replace_block(document, block, content)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_console_block_is_walked_or_says_why_not(document):
    assert len(blocks_of(document)) == read(document).count("```console\n")


@pytest.mark.parametrize("block", BLOCKS, ids=[block.place for block in BLOCKS])
def test_each_line_of_a_console_block_is_of_a_command(block):
    assert block.content.startswith("$ ")
    assert block.not_run is None or [step.shown for step in block.steps] == [[] for _ in block.steps]


def test_a_line_is_brought_up_to_date_by_one_that_differs_in_figures_alone():
    printed = ["other", "lr   0.004  1a2b3c4", "loss 1.5e-05", "file:///here/page"]

    assert brought_up_to_date(["lr 0.2 abcdef1", "loss 7", "file:///…/page"], printed) == [
        "lr   0.004  1a2b3c4", "loss 1.5e-05", "file:///…/page",
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="accuracy 3"):
        brought_up_to_date(["accuracy 3"], printed)
