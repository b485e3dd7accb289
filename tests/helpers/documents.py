"""README.md and docs/ as text, and their console blocks as commands with what they print.

A block of ``console`` holds commands, each after ``$ ``, and lines that they print, not all of them. It is run as it
stands, unless the line before it is a comment ``<!-- not run: why -->``. ``<this repository>`` stands for a Git server.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from helpers.project import ROOT

DOCUMENTS = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- not run: ([^\n]+) -->\n)?```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"-?\b[0-9a-f]{7}\b|-?\d[\d.,]*(?:e-\d+)?| +|──+|\b[AP]M\b|…")


class Step(NamedTuple):
    """A command, and the lines that the document shows of what it prints."""

    command: str
    shown: list[str]


class Block(NamedTuple):
    """A console block of a document.

    Attributes:
        place: the document and the line, for messages.
        content: as it stands in the document.
        not_run: why it is not run; None where it is.
    """

    place: str
    content: str
    not_run: str | None

    @property
    def steps(self) -> list[Step]:
        """Its commands; one whose line ends in a backslash goes on in the next line."""
        steps: list[Step] = []
        lines = iter(self.content.splitlines())
        for line in lines:
            if line.startswith("$ "):
                command = line.removeprefix("$ ")
                while command.endswith("\\"):
                    command += f"\n{next(lines)}"
                steps.append(Step(command, []))
            else:
                steps[-1].shown.append(line)
        return steps


def read(document: str) -> str:
    """A document's text."""
    return (ROOT / document).read_text(encoding="utf-8")


def prose_of(document: str) -> str:
    """A document's text without its blocks of code."""
    return FENCED.sub("", read(document))


def links_of(document: str) -> list[tuple[str, str, str]]:
    """Of each link that is no web page: ``!`` where it is a picture, its text, its target."""
    return [link for link in LINK.findall(prose_of(document)) if not link[2].startswith("https://")]


def anchors_of(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks_of(document: str) -> list[Block]:
    """All console blocks of a document."""
    text = read(document)
    return [
        Block(f"{document}:{text.count(chr(10), 0, found.start(2))}", found[2], found[1])
        for found in BLOCK.finditer(text)
    ]


def brought_up_to_date(shown: Iterable[str], printed: Iterable[str]) -> list[str]:
    """Replace each line that is shown by the line of what was printed that differs from it in figures alone.

    ``…`` stands for anything; a line that has one stays as it is.

    Raises:
        AssertionError: there is no such line after the one before.
    """
    lines, found = iter(printed), []
    for line in shown:
        pattern = "".join(map(_pattern_of, re.split(f"({FIGURE.pattern})", line.rstrip())))
        match = next((other for other in lines if re.fullmatch(pattern, other)), None)
        assert match is not None, f"not printed, or not here: {line}"
        found.append(line if "…" in line else match)
    return found


def _pattern_of(part: str) -> str:
    """What may stand for a part of a line: other digits for digits, any number of spaces for some."""
    if not FIGURE.fullmatch(part):
        return re.escape(part)
    if part == "…":
        return ".*"
    if part.startswith(" "):
        return " +"
    if part.startswith("─"):
        return "─+"
    if part in ("AM", "PM"):
        return "[AP]M"
    return r"[0-9a-f]{7}" if re.fullmatch(r"[0-9a-f]{7}", part) else r"-?\d[\d.,]*(?:e-\d+)?"


def replace_block(document: str, block: Block, content: str) -> None:
    """Write another content in the place of a block."""
    (ROOT / document).write_text(
        read(document).replace(f"```console\n{block.content}```", f"```console\n{content}```", 1)
    )
