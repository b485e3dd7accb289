"""How a stage ends when something is wrong: one line for the user, a non-zero exit code, no traceback."""

import functools
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that the user can put right. The message says what is wrong, with which value, and what to do."""


def exit_on_user_error(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a stage's ``main``: a `UserError` or Ctrl-C becomes a line on stderr and exit code 1 or 130."""

    @functools.wraps(main)
    def wrapper() -> None:
        try:
            main()
        except UserError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapper
