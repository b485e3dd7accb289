"""The curves of a run, written by dvclive while it goes on. DVC, its VS Code extension and Studio read them."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dvclive import Live
from scmrepo.exceptions import SCMError

from src.pipeline.files import read_columns, write_file, writing
from src.pipeline.paths import SETS, TRAIN_CURVES_DIR, TRAIN_METRICS_DIR
from src.pipeline.process import UserError
from src.train.trainer import Metrics


@contextmanager
def open_live(*, writes: bool) -> Iterator[Live | None]:
    """Open dvclive on an empty ``metrics/train``; where this process does not write, open nothing.

    Raises:
        UserError: the files can't be written, or the Git repository has no commit yet, without which dvclive can't
            start.
    """
    if not writes:
        yield None
        return
    try:
        with writing(TRAIN_METRICS_DIR):  # reports, dvc.yaml and experiments are DVC's here
            live = Live(str(TRAIN_METRICS_DIR), report=None, save_dvc_exp=False, dvcyaml=False)
    except SCMError as error:
        raise UserError(f"{error}: dvclive needs a first commit; run `git add -A && git commit -m start`") from error
    try:
        yield live
    finally:
        # Beside its own files it removes a marker for VS Code, which another run of the queue may just have removed.
        with writing(TRAIN_METRICS_DIR), contextlib.suppress(FileNotFoundError):
            live.end()


@writing(TRAIN_METRICS_DIR)
def log_epoch(live: Live | None, results: dict[str, Metrics], learning_rate: float) -> None:
    """Write one epoch's loss and accuracy on each set, as ``metrics/train/plots/metrics/<set>/<metric>.tsv``.

    The learning rate goes beside them, as ``lr.tsv``. A set that is not there gets empty curves, which dvc.yaml names.
    Raises `UserError` where they can't be written.
    """
    if live:
        live.step = max(1, live.step)  # epochs are counted from 1
        for name in SETS:
            for metric in Metrics._fields:
                if name in results:
                    live.log_metric(f"{name}/{metric}", getattr(results[name], metric))
                else:
                    write_file(TRAIN_CURVES_DIR / name / f"{metric}.tsv", f"step\t{metric}\n".encode())
        live.log_metric("lr", learning_rate)
        for name in ("test", "lr"):  # `evaluate` gives the first's figures: one name, one figure
            live.summary.pop(name, None)
        live.next_step()


@writing(TRAIN_METRICS_DIR)
def log_run(live: Live | None, **values: str | int) -> None:
    """Add single values to ``metrics/train/metrics.json``. Raises `UserError` where it can't be written."""
    if live:
        for name, value in values.items():
            live.log_metric(name, value, plot=False)


def require_own_curves(history: Sequence[dict[str, Metrics]]) -> None:
    """To be called before the model is saved: the curves are those of this run's ``history``.

    dvclive appends to whatever file lies there, also to an older one that Git has put back meanwhile.

    Raises:
        UserError: one is another. When the run goes on from its checkpoint, all curves are written anew.
    """
    for name, metric in itertools.product(SETS, Metrics._fields):
        file = TRAIN_CURVES_DIR / name / f"{metric}.tsv"
        expected = [getattr(results[name], metric) for results in history if name in results]
        if read_columns(file, {metric: float})[metric] != expected:
            raise UserError(f"{file} changed while this stage ran; run the same command again to write it anew")
