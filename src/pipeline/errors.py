"""What can go wrong so that the user should hear of it in one line."""


class UserError(Exception):
    """Something that the user can put right. The message says what is wrong, with which value, and what to do."""


class Interrupted(Exception):
    """A signal ended the stage in good order. The message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as a shell reports a process that a signal ended


def is_out_of_memory(error: BaseException) -> bool:
    """Tell it by PyTorch's words, which differ from device to device; its type for it is not imported here."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
