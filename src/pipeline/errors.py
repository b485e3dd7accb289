"""How a stage begins and ends: what goes wrong is one line for the user, a non-zero exit code, no traceback."""

import functools
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType


class UserError(Exception):
    """Something that the user can put right. The message says what is wrong, with which value, and what to do."""


class Interrupted(Exception):
    """A signal ended the stage in good order. The message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as a shell reports a process that a signal ended


def exit_on_user_error(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a stage's ``main``: what the user can put right becomes a line on stderr and a non-zero exit code.

    Each line appears when it is printed, into a file or a pipe too.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        try:
            refuse_shallow_clone()
            main()
        except UserError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            sys.exit(f"error: {error.filename or 'input or output'}: {error.strerror or error}")
        except Interrupted as error:
            print(f"interrupted: {error}", file=sys.stderr)
            sys.exit(error.exit_code)

    return wrapper


def report_interrupt_in_one_line() -> None:
    """Have Ctrl-C print one line instead of a traceback, for the rest of this process.

    A stage calls it before its imports, which take seconds. Everything else is reported as ever.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted: run the same command again to go on", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook


def refuse_shallow_clone() -> None:
    """Raise `UserError` for ``dvc exp run --temp`` and the queue in a shallow clone.

    DVC runs them in a folder of its own and brings the experiment home by Git, which fails there without a word.
    """
    root = os.environ.get("DVC_ROOT", ".")
    if Path(root).resolve() == Path.cwd().resolve():
        return
    command = ["git", "-C", root, "rev-parse", "--is-shallow-repository"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stdout.strip() == "true":
        raise UserError("this clone is shallow, DVC would lose the experiment; run `git fetch --unshallow`")
