"""The last words of ``make repro``: what came out, where it is, and which command comes next. No stage of its own."""

import os
import subprocess

from src.pipeline.files import read_json
from src.pipeline.params import load_params
from src.pipeline.process import exit_on_user_error
from src.pipeline.results import (
    EVALUATE_METRICS_FILE,
    EXPORT_METRICS_FILE,
    MODEL_FILE,
    ONNX_FILE,
    OUTLIERS_METRICS_FILE,
    TRAIN_METRICS_FILE,
    TRY_AGAIN,
)
from src.report.page import PAGE_FILE, not_downloaded

ACTIVATE = ". .venv/bin/activate"


@exit_on_user_error
def main() -> None:
    params = load_params()
    test, train = read_json(EVALUATE_METRICS_FILE)["test"], read_json(TRAIN_METRICS_FILE)
    weights = train["initial_weights"]
    accuracy = f"{test['accuracy']:.2%} right of {test['images']:,} test images, from {weights} weights"
    print()
    print(f"model    {MODEL_FILE}, and {ONNX_FILE} for onnxruntime: {accuracy}")
    metrics = (TRAIN_METRICS_FILE, EVALUATE_METRICS_FILE, OUTLIERS_METRICS_FILE, EXPORT_METRICS_FILE)
    print(f"metrics  {', '.join(map(str, metrics))}")
    print(f"report   {PAGE_FILE}: the training and the test on one page, with the pictures")
    if missing := not_downloaded(params, train):
        print(f"missing  {missing} could not be downloaded. Once the network is there: {ACTIVATE} && {TRY_AGAIN}")
    if not has_git_identity():
        print("first    git config --global user.name NAME && git config --global user.email ADDRESS")
    print("keep it  git add -A && git commit -m 'a run'")
    print(f"next     {ACTIVATE} && dvc exp run -S epochs=5 && dvc metrics diff")


def has_git_identity() -> bool:
    """Whether DVC can commit an experiment. Its Git, unlike the command, never guesses a name (scmrepo's pygit2)."""
    return all(
        os.environ.get(f"GIT_COMMITTER_{key.upper()}")
        or subprocess.run(["git", "config", f"user.{key}"], capture_output=True, check=False).returncode == 0
        for key in ("name", "email")
    )


if __name__ == "__main__":
    main()
