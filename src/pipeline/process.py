"""How a process of this project begins and ends, and the errors that its user reads as one line."""

import gc
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from src.pipeline.environment import close_environment
from src.pipeline.inputs import hash_inputs
from src.pipeline.project import ROOT, loses_experiments

INTERRUPTED = "interrupted: run the same command again to go on"
_inputs_at_start: dict[str, str] = {}


class UserError(Exception):
    """Something that the user can put right. The message says what is wrong, with which value, and what to do."""


class Interrupted(Exception):
    """A signal ended the stage in good order. The message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as a shell reports a process that a signal ended


def run(module: str) -> NoReturn:
    """Import ``module``, call its ``main``, and end this process with the `exit_code`.

    The import takes seconds. Until it is done Ctrl-C ends the process at once: an exception in the midst of a library's
    start can end in an abort. The libraries make a million objects that live to the end. Not to search these for
    garbage saves a sixth of the import, and not to take them apart at the end saves a second.

    Libraries read the environment as they are loaded, so it is closed first.
    """
    close_environment()
    signal.signal(signal.SIGINT, _end_at_once)
    _inputs_at_start.update(hash_inputs())
    gc.disable()
    main = importlib.import_module(module).main
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # each line appears when it is printed, into a file or a pipe too
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    code = exit_code(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code(main: Callable[[], object]) -> int:
    """Call ``main``, print what goes wrong on stderr, and return the exit code.

    What the user can put right is one line without a traceback.
    """
    try:
        if loses_experiments():
            raise UserError("this clone is shallow, DVC would lose the experiment; run `git fetch --unshallow`")
        main()
    except UserError as error:
        return _fail(f"error: {error}")
    except OSError as error:
        return _fail(f"error: {error.filename or 'input or output'}: {error.strerror or error}")
    except Interrupted as error:
        return _fail(f"interrupted: {error}", error.exit_code, "yellow")
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, 128 + signal.SIGINT, "yellow")
    except SystemExit as error:  # argparse's
        return error.code if isinstance(error.code, int) else _fail(error.code) if error.code else 0
    except BaseException as error:
        if is_out_of_memory(error):
            less = "a stage needs less with a smaller batch_size or image_size"
            return _fail(f"error: out of memory ({first_line(error)}); {less}")
        traceback.print_exc()
        return 1
    return 0


def require_unchanged_inputs() -> None:
    """To be called before a stage writes its results: nothing that it depends on was edited since its start.

    DVC hashes a stage's dependencies after its command. An edit made meanwhile would stand in ``dvc.lock`` as what the
    results come from, and the run cache would give them out for it ever after (treeverse/dvc issue 11058).

    Raises:
        UserError: something was. The message names it.
    """
    before, now = _inputs_at_start, hash_inputs()
    if changed := [name for name in before | now if before and before.get(name) != now.get(name)]:
        raise UserError(
            f"{', '.join(changed[:3])} changed while this stage ran, so its results are not written; undo the change "
            "and run the same command again, or run it again as it is"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell it by PyTorch's words, which differ from device to device; its type for it is not imported here."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def imported_sources() -> list[Path]:
    """List the project's files that this process has imported: all the code that a stage's results depend on."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return sorted(Path(file) for file in files if file and Path(file).is_relative_to(ROOT / "src"))


def print_styled(line: str, style: str, stream: TextIO | None = None) -> None:
    """Print a line, on stdout by default; on a terminal in a style of rich's, unless ``NO_COLOR`` is set."""
    stream = stream or sys.stdout
    if stream.isatty():
        from rich.console import Console  # here, since it takes 0.15 s, and most processes print no such line
        from rich.text import Text

        Console(file=stream).print(Text(line, style), soft_wrap=True)
    else:
        print(line, file=stream)


def _fail(line: str, code: int = 1, style: str = "bold red") -> int:
    print_styled(line, style, sys.stderr)
    return code


def _end_at_once(number: int, _: FrameType | None) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)
