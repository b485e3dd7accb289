"""README.md and docs/ as text, and their console blocks as commands with what they print.

A block of ``console`` holds commands, each after ``$ ``, and lines that they print, not all of them. It is run as it
stands, unless the line before it is a comment ``<!-- not run: why -->``. A block of ``python`` is run as a program that
sees nothing of the project. ``<this repository>`` stands for a Git server.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from helpers.project import ROOT

DOCUMENTS = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^][]|\[[^]]*\])*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
FIGURES = (" +", "─+", r"\b[AP]M\b", r"\b[0-9a-f]{7}\b", r"-?\d[\d.,]*(?:e-\d+)?")  # what may differ in a line


class Block(NamedTuple):
    """A block of a document that a reader may run, and its steps: each command, with the lines that it shows."""

    content: str
    is_run: bool
    steps: list[tuple[str, list[str]]]


def read(document: str) -> str:
    """A document's text."""
    return (ROOT / document).read_text(encoding="utf-8")


def prose_of(document: str) -> str:
    """A document's text without its blocks of code."""
    return FENCED.sub("", read(document))


def links_of(document: str) -> list[str]:
    """The target of each link that is not a web page."""
    return [target for target in LINK.findall(prose_of(document)) if not target.startswith("https://")]


def anchors_of(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks_of(document: str) -> list[Block]:
    """All blocks of a document that a reader may run. A command whose line ends in a backslash goes on in the next."""
    blocks = []
    for not_run, language, content in BLOCK.findall(read(document)):
        steps = [(f"python -I - << 'END'\n{content}END", [])]
        if language == "console":
            begin, *parts = re.split(r"^\$ ((?:.*\\\n)*.*)\n", content, flags=re.MULTILINE)
            assert not begin, f"lines before the first command: {begin}"
            steps = [(command, shown.splitlines()) for command, shown in zip(parts[::2], parts[1::2], strict=True)]
        blocks.append(Block(content, not not_run, steps))
    return blocks


def brought_up_to_date(shown: Iterable[str], printed: Iterable[str]) -> list[str]:
    """Replace each line that is shown by the next printed one that differs from it in `FIGURES` alone; one must.

    A line that has a ``…`` stays as it is.
    """
    lines, found = map(str.rstrip, printed), []
    for line in shown:
        pattern = ""
        for part in re.split(f"(…|{'|'.join(FIGURES)})", line.rstrip()):
            figure = next((figure for figure in FIGURES if re.fullmatch(figure, part)), re.escape(part))
            pattern += ".*" if part == "…" else figure
        match = next((other for other in lines if re.fullmatch(pattern, other)), None)
        assert match is not None, f"not printed, or not here: {line}"
        found.append(line if "…" in line else match)
    return found
