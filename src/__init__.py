"""A reproducible DVC workflow that trains ResNet-18 on MNIST: one module for each stage of dvc.yaml."""

import sys
from types import TracebackType


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that Ctrl-C came, also while a stage still imports its libraries; all else as ever."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted: run the same command again to go on", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _without_traceback
