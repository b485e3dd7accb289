"""Ctrl-C and SIGTERM as a request to stop at the next good moment, instead of at once."""

import contextlib
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Self

import psutil


class StopSignal:
    """Within this context SIGINT and SIGTERM are noted, and do nothing else.

    After an error that leaves the context they still do nothing else: the error's line has yet to be printed, and
    ``torchrun`` sends a SIGTERM to all processes as soon as one is gone.

    The end of DVC is noted too, for a stage that DVC runs. A SIGTERM or SIGKILL to ``dvc`` alone does not reach the
    stage, which would train on for nobody while the next ``dvc repro`` starts beside it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._line = line_below_dvc() if "DVC_STAGE" in os.environ else []  # DVC sets it for each stage
        self._parents = [process.ppid() for process in self._line]

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
        if self._received is None and self._is_orphaned():
            self._received = signal.SIGTERM
        return self._received

    def _is_orphaned(self) -> bool:
        try:
            return [process.ppid() for process in self._line] != self._parents
        except psutil.NoSuchProcess:
            return True

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = number


def line_below_dvc() -> list[psutil.Process]:
    """List the processes from this one up to the one that ``dvc`` started; this one alone where no ``dvc`` is found.

    A shell or ``torchrun`` may stand between: it outlives a ``dvc`` that is killed, and then has another parent.
    """
    line = [psutil.Process()]
    with contextlib.suppress(psutil.AccessDenied):  # somebody else's process is not the dvc that started this one
        for parent in line[0].parents():
            if "dvc" in [Path(word).name for word in parent.cmdline()[:3]]:
                return line
            line.append(parent)
    return line[:1]
