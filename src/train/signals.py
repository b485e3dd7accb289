"""Ctrl-C, SIGTERM and a closed terminal as a request to stop at the next good moment, instead of at once."""

import contextlib
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Self

import psutil


class StopSignal:
    """Within this context SIGINT, SIGTERM and SIGHUP are noted, and do nothing else.

    After an error that leaves the context they still do nothing else: the error's line has yet to be printed, and
    ``torchrun`` sends a SIGTERM to all processes as soon as one is gone.

    The end of DVC is noted too, for a stage that DVC runs. A SIGTERM or SIGKILL to ``dvc`` alone does not reach the
    stage, which would train on for nobody while the next ``dvc repro`` starts beside it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._starter = process_that_started_this() if "DVC_STAGE" in os.environ else None  # DVC sets it for each stage

    def __enter__(self) -> Self:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # ignored under `nohup`
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    @property
    def received(self) -> int | None:
        """The signal that asks to stop, None as long as there is none."""
        if self._received is None and self._starter and not is_alive(self._starter):
            self._received = signal.SIGTERM
        return self._received

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = number


def process_that_started_this() -> psutil.Process | None:
    """Find the nearest ``dvc`` above this process, also behind a shell or ``torchrun``; else the parent, if any.

    A parent's number will not do to tell that it has gone: Windows keeps it, and a shell in between outlives ``dvc``.
    """
    parents = psutil.Process().parents()
    with contextlib.suppress(psutil.Error):  # somebody else's process, or one that is gone, did not start this one
        for parent in parents:
            if "dvc" in [Path(word).stem for word in parent.cmdline()[:3]]:
                return parent
    return parents[0] if parents else None


def is_alive(process: psutil.Process) -> bool:
    """Whether ``process`` runs still, and is not only waiting for its parent to take note of its end."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
