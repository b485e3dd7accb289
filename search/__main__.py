"""``make search``: parameters chosen by validation loss, each trial an experiment of DVC's in a folder of its own.

Optuna says what to try next, and which trial to end early. Whatever kills the search, the same command goes on: trials
that have ended are in Optuna's study, one that was killed goes on from its checkpoint. A search belongs to a commit.
"""

import argparse
import contextlib
import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

import optuna
import psutil
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from experiments.compare import changes, load_rows, parameters
from src.pipeline.params import Params, load_params
from src.pipeline.process import UserError, exit_code, first_line

SPACE_FILE = Path("search/space.yaml")
STUDY_FILE = Path(".dvc/tmp/search/study.db")  # SQLite takes back what a kill cuts short; Optuna's journal does not
_stopped: list[bool] = []
EPOCH = re.compile(r"epoch ([\d.]+)/.* validation (\S+) ")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m search", description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20, help="how many in all, those of earlier calls included")
    trials, params = parser.parse_args().trials, load_params()
    if params.validation_size == 0:
        raise UserError("validation_size = 0: a search chooses by validation loss; set it above 0 and commit that")
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    STUDY_FILE.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(STUDY_FILE.with_suffix(".lock"), blocking=False):
            search(trials, params, load_space(params))
    except Timeout as error:
        raise UserError("a search runs here already") from error


def search(trials: int, params: Params, space: dict[str, BaseDistribution]) -> None:
    """Run trials of the last commit until so many have ended, and print the best five.

    Raises:
        UserError: a file is not as in that commit, or a trial failed.
    """
    commit = git("rev-parse", "HEAD")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_warmup_steps=round(0.3 * params.epochs))  # the rate of one_cycle rises
    study = optuna.create_study(
        storage=f"sqlite:///{STUDY_FILE}", study_name=commit, load_if_exists=True, pruner=pruner
    )
    if not study.trials:
        study.enqueue_trial({name: value for name, value in params if name in space})
    while len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))) < trials:
        raise_if_stopped()
        if changed := git("diff", "--name-only", commit).splitlines():  # DVC would take the change into the trial
            raise UserError(
                f"{', '.join(changed[:3])} changed since {commit[:7]}, which is searched; commit or undo it"
            )
        run_trial(study, next_trial(study, space))

    best = sorted(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda trial: trial.value or 0.0)[:5]
    print(f"\n{'':11} validation loss  accuracy  parameters")
    for trial in best:
        accuracy, values = trial.user_attrs["accuracy"], changes(trial.params, {})
        print(f"{experiment_of(trial):11} {trial.value:15.5f}  {accuracy:8.2%}  {values}")
    if best:
        print(f"apply it: dvc exp apply {experiment_of(best[0])}")


def stop(*_: int | FrameType | None) -> NoReturn:
    """Note a signal, and raise. What is raised where a library cleans up is lost: see `raise_if_stopped`."""
    _stopped.append(True)
    raise KeyboardInterrupt


def raise_if_stopped() -> None:
    """Raise `KeyboardInterrupt` where a signal has come."""
    if _stopped:
        raise KeyboardInterrupt


def load_space(params: Params) -> dict[str, BaseDistribution]:
    """Read where to look for each parameter; the value of ``params.yaml`` is always among the choices.

    Raises:
        UserError: the file can't be read, or says what it should not.
    """
    space: dict[str, BaseDistribution] = {}
    try:
        for name, limits in YAML(typ="safe").load(SPACE_FILE.read_text(encoding="utf-8")).items():
            if "choices" in limits:
                space[name] = CategoricalDistribution(tuple(dict.fromkeys([getattr(params, name), *limits["choices"]])))
            else:
                whole = all(isinstance(limit, int) for limit in limits.values())
                space[name] = (IntDistribution if whole else FloatDistribution)(**limits)
    except (AttributeError, TypeError, ValueError, YAMLError) as error:
        raise UserError(f"{SPACE_FILE}: {first_line(error)}") from error
    if unknown := space.keys() - Params.model_fields.keys():
        raise UserError(f"{SPACE_FILE}: no parameters are {', '.join(sorted(unknown))}")
    return space


def next_trial(study: optuna.Study, space: dict[str, BaseDistribution]) -> optuna.Trial:
    """Take up the trial that a kill left, or ask for a new one."""
    for killed in study.get_trials(states=(TrialState.RUNNING,)):
        if killed.params.keys() == space.keys():
            return optuna.Trial(study, killed._trial_id)
        study.tell(killed.number, state=TrialState.FAIL)  # killed before it had its parameters
    # A seed for each trial: a search that was killed asks for what any other asks for
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    return study.ask(space)


def run_trial(study: optuna.Study, trial: optuna.Trial) -> None:
    """Have DVC make a trial's experiment, or find that it has, and tell Optuna the validation loss.

    Raises:
        UserError: it failed otherwise than by a loss that is no number.
    """
    name, output = experiment_of(trial), ""
    print(f"{name}: {changes(trial.params, {})}", flush=True)
    if not (row := find(name, trial.params)):
        output = run_experiment(name, trial)
        row = find(name, trial.params)
    if row:
        trial.set_user_attr("accuracy", row["validation.accuracy"])
        study.tell(trial, row["validation.loss"])
        print(f"{name}: validation loss {row['validation.loss']:.5f}", flush=True)
    elif trial.should_prune() or "error: the loss is " in output:
        study.tell(trial, state=TrialState.PRUNED)
        print(f"{name}: ended early", flush=True)
    elif "interrupted: " in output:
        raise KeyboardInterrupt
    else:
        study.tell(trial, state=TrialState.FAIL)
        why = re.search(r"^error: (.*)$", output, re.MULTILINE | re.IGNORECASE)
        raise UserError(f"{name} failed: {why[1] if why else output}; the same command goes on with another trial")


def run_experiment(name: str, trial: optuna.Trial) -> str:
    """Run it, with its loss of each epoch reported, until its end or the pruner's word; return what DVC printed."""
    values = [f"--set-param={key}={json.dumps(value)}" for key, value in trial.params.items()]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *values]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or ():
                raise_if_stopped()
                lines.append(line)
                if line.startswith(("epoch ", "train: going on ")):
                    print(f"  {line}", end="", flush=True)
                if found := EPOCH.match(line):
                    trial.report(float(found[2]), math.ceil(float(found[1])))
                    if trial.should_prune():
                        end_stage(process.pid)
        except KeyboardInterrupt:
            while process.poll() is None:  # DVC may be between two stages; at the end it removes its folder
                end_stage(process.pid)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=1)
            raise
    return "".join(lines)


def end_stage(dvc: int) -> None:
    """End what DVC runs as Ctrl-C does: it saves its state, and DVC, which heeds no Ctrl-C meanwhile, ends in order."""
    with contextlib.suppress(psutil.Error, ValueError):  # gone already; no such signal on Windows
        for process in psutil.Process(dvc).children(recursive=True):
            process.send_signal(signal.SIGINT)


def experiment_of(trial: optuna.Trial | optuna.trial.FrozenTrial) -> str:
    return f"search-{trial.number}"


def find(name: str, values: Mapping[str, object]) -> dict | None:
    """Find an experiment of the last commit, with these parameters, that is through."""
    rows = [row for row in load_rows() if row["Experiment"] == name]
    same = [row for row in rows if all(parameters(row)[key] in (value, str(value)) for key, value in values.items())]
    return next(iter(same), None)


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"git: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(exit_code(main))
