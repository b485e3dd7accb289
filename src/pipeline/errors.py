"""What can go wrong so that the user should hear of it in one line."""


class UserError(Exception):
    """Something that the user can put right. The message says what is wrong, with which value, and what to do."""


class Interrupted(Exception):
    """A signal ended the stage in good order. The message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as a shell reports a process that a signal ended


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
