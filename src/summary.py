"""The last words of ``make repro``: what came out, where it is, and which command comes next. Not a stage."""

import os
import subprocess
import sys

from src.pipeline.files import read_columns, read_json
from src.pipeline.params import load_params
from src.pipeline.paths import (
    EVALUATE_METRICS_FILE,
    MODEL_FILE,
    REPORT_FILE,
    SPEED_FILE,
    TRAIN_METRICS_FILE,
    TRY_AGAIN,
)
from src.pipeline.process import exit_code, print_styled
from src.report.page import fell_back

ACTIVATE = ". .venv/bin/activate"


def main() -> None:
    params = load_params()
    test, train = read_json(EVALUATE_METRICS_FILE)["test"], read_json(TRAIN_METRICS_FILE)
    print()
    print_styled(f"model    {MODEL_FILE}: {test['accuracy']:.2%} right of {test['images']:,} test images", "bold green")
    columns = dict.fromkeys(("images_per_second", "seconds", "memory"), float)
    speed = read_columns(SPEED_FILE, columns) if SPEED_FILE.exists() else {"images_per_second": [0]}
    if max(speed["images_per_second"]):  # not where the run cache had the training, nor where no step of it was left
        print(
            f"speed    {max(speed['images_per_second']):,.0f} images/s, {sum(speed['seconds']):,.0f} s, "
            f"{max(speed['memory']) / 2**30:.1f} GiB in the last training; its epochs are in {SPEED_FILE}"
        )
    print(f"metrics  {TRAIN_METRICS_FILE}, {EVALUATE_METRICS_FILE}")
    print(f"report   {REPORT_FILE}: the training and the test on one page, with the pictures")
    if fallback := fell_back(params, train["dataset"]):
        print(f"missing  MNIST could not be downloaded. Once the network is there: {ACTIVATE} && {TRY_AGAIN}")
    if not has_git_identity():
        print("first    git config --global user.name NAME && git config --global user.email ADDRESS")
    if not on_a_branch():
        print("first    git switch main, or to your branch: HEAD is on no branch, as after a killed `dvc exp run`")
    if not fallback:  # a run on the sample should not take the place of one on the full set
        print("keep it  git add -A && git commit -m 'a run'")
    print(f"next     {ACTIVATE} && dvc exp run -S epochs=5 && dvc metrics diff")
    if train["dataset"] in ("mnist", "sample"):
        print("reader   make reader: the model in a command, a page to draw on and an ONNX file")
    else:
        print("predict  ./predict.py PICTURE...")


def has_git_identity() -> bool:
    """Whether DVC can commit an experiment. Its Git, unlike the command, never guesses a name (scmrepo's pygit2)."""
    return all(
        os.environ.get(f"GIT_COMMITTER_{key.upper()}")
        or subprocess.run(["git", "config", f"user.{key}"], capture_output=True, check=False).returncode == 0
        for key in ("name", "email")
    )


def on_a_branch() -> bool:
    """Whether a commit would be on a branch. DVC leaves HEAD on none where it was killed (dvc issue 10411)."""
    return subprocess.run(["git", "symbolic-ref", "-q", "HEAD"], capture_output=True, check=False).returncode != 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
