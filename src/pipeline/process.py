"""How a process of ours begins and ends: what goes wrong is one line, a non-zero exit code, and no traceback."""

import functools
import gc
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from src.pipeline.dvc import refuse_shallow_clone
from src.pipeline.errors import Interrupted, UserError, first_line, is_out_of_memory

INTERRUPTED = "interrupted: run the same command again to go on"
TAKEN_AWAY = (  # variables by which results would differ, and PyTorch could not tell
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),  # oneDNN's fp32 would be less exact
    *("OMP_DYNAMIC", "OMP_MAX_ACTIVE_LEVELS", "OMP_THREAD_LIMIT"),  # fewer threads than it is told, or an endless wait
)


def exit_on_user_error(main: Callable[[], object]) -> Callable[[], None]:
    """Wrap a stage's ``main``: what the user can put right becomes a line on stderr and a non-zero exit code.

    Each line appears when it is printed, into a file or a pipe too.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # of a file's name, say
        if signal.getsignal(signal.SIGINT) is _end_at_once:  # after `before_imports`
            gc.freeze()
            gc.enable()
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            refuse_shallow_clone()
            main()
        except UserError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            sys.exit(f"error: {error.filename or 'input or output'}: {error.strerror or error}")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            less = "a stage needs less with a smaller batch_size or image_size"
            sys.exit(f"error: out of memory ({first_line(error)}); {less}")
        except Interrupted as error:
            print(f"interrupted: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return wrapper


def before_imports() -> None:
    """Prepare this process for importing its libraries, which takes seconds.

    Ctrl-C ends it at once until `exit_on_user_error` takes over: an exception in the midst of a library's start can end
    in its own abort. The libraries make a million objects that live to the end; not to search these for garbage saves
    a sixth of the time. As they are loaded, oneDNN and OpenMP read their variables.
    """
    for variable in TAKEN_AWAY:
        os.environ.pop(variable, None)
    signal.signal(signal.SIGINT, _end_at_once)
    gc.disable()


def run_and_exit(main: Callable[[], None]) -> None:
    """Call ``main``, as an `exit_on_user_error`, and end this process at once.

    To take all objects of the libraries apart, as Python does at its end, takes a second.
    """
    code = 0
    try:
        main()
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_at_once(number: int, _: FrameType | None) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)
