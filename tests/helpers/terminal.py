"""A terminal in which the commands of a document are typed, one block after another."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.documents import Step
from helpers.project import Project

BOUND = "=== the next command ==="
# The environment that is there stands for the one that `make` would set up.
PRELUDE = f"""set -e
make() {{ command make -o setup -o setup-dev BIN={shlex.quote(str(Path(sys.executable).parent))} "$@"; }}
cd "$(cat "$PLACE")"
"""


class Terminal:
    """A shell that stays where the last block left it."""

    def __init__(self, project: Project, folder: Path, repository: Path) -> None:
        """Begin in ``folder``. ``repository`` is what ``<this repository>`` stands for."""
        self._environment = project.environment() | {"PLACE": f"{repository}.place"}
        self._repository = repository
        Path(self._environment["PLACE"]).write_text(str(folder))

    def type(self, steps: Sequence[Step]) -> list[list[str]]:
        """Run the commands of a block; return the lines that each printed, errors included."""
        typed = "\n".join(f"echo '{BOUND}'\n{step.command}" for step in steps)
        script = f'{PRELUDE}{typed}\npwd > "$PLACE"\n'.replace("<this repository>", str(self._repository))
        done = subprocess.run(
            ["bash", "-c", script],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        _, *printed = done.stdout.split(f"{BOUND}\n")
        return [[line.rstrip() for line in part.splitlines()] for part in printed]
