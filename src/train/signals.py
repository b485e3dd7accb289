"""Ctrl-C and SIGTERM as a request to stop at the next good moment, instead of at once."""

import os
import signal
from types import FrameType
from typing import Self


class StopSignal:
    """Within this context SIGINT and SIGTERM are noted, and do nothing else.

    After an error that leaves the context they still do nothing else: the error's line has yet to be printed, and
    ``torchrun`` sends a SIGTERM to all processes as soon as one is gone.

    The end of the parent is noted too, for a stage that DVC runs. A SIGTERM or SIGKILL to ``dvc`` alone does not reach
    the stage, which would train on for nobody while the next ``dvc repro`` starts beside it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._parent = os.getppid() if "DVC_STAGE" in os.environ else None  # set by DVC for each stage

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    @property
    def received(self) -> int | None:
        """The signal that asks to stop, None as long as there is none."""
        if self._received is None and self._parent not in (None, os.getppid()):
            self._received = signal.SIGTERM
        return self._received

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = number
