"""``make docs``: fill in what README.md and docs/ say of files that know it better.

What stands between ``<!-- name -->`` and ``<!-- /name -->`` is the text that `facts.FACTS` has under that name. It is
made of committed files alone, so that it takes seconds and needs neither data nor model.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from release.facts import FACTS

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"<!-- ([\w-]+) -->(\n?)(.*?)<!-- /\1 -->", re.DOTALL)


def main() -> None:
    for document in documents():
        old = document.read_text(encoding="utf-8")
        new = fill(old)
        if new != old:
            document.write_text(new, encoding="utf-8")
            print(f"docs: {document.relative_to(ROOT)} brought up to date")
    print("docs: all that they say of committed files is as it is there; `make walk` runs their commands")


def documents() -> list[Path]:
    """List README.md and the files of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fill(text: str, facts: Mapping[str, Callable[[], str]] = FACTS) -> str:
    """Put each fact in its place. A place that began with a new line keeps its text on lines of its own.

    Raises:
        KeyError: there is no such fact.
    """

    def filled(place: re.Match) -> str:
        name, line, _ = place.groups()
        fact = facts[name]()
        return f"<!-- {name} -->{line}{fact}{line if fact else ''}<!-- /{name} -->"

    return PLACE.sub(filled, text)


if __name__ == "__main__":
    main()
