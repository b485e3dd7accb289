"""Ctrl-C and SIGTERM as a request to stop at the next good moment, instead of at once."""

import os
import signal
from types import FrameType
from typing import Self


class Interruption:
    """Within this context, and after an error that leaves it, SIGINT and SIGTERM are noted and nothing else.

    After an error too, because its line has still to be printed, and ``torchrun`` sends a SIGTERM to all processes as
    soon as one is gone.

    The end of the parent is noted too, for a stage that DVC runs: a SIGTERM or SIGKILL to ``dvc`` alone does not reach
    the stage, which would train on for nobody while the next ``dvc repro`` starts beside it.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._parent = os.getppid() if "DVC_STAGE" in os.environ else None  # set by DVC for each stage

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    @property
    def signal(self) -> int | None:
        """The signal that asks to stop, None as long as there is none."""
        if self._signal is None and self._parent not in (None, os.getppid()):
            self._signal = signal.SIGTERM
        return self._signal

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signal = number
