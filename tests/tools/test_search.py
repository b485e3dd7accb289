"""``make search``: a killed search goes on in the midst of a trial, a bad trial ends early, folly is refused."""

import contextlib
import os
import re
import signal
import time

import optuna
import pytest
from helpers.project import QUICK, Project, needs_posix
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from search import __main__ as search
from src.pipeline.params import Params
from src.pipeline.process import UserError

SEARCH = ("python", "-m", "search", "--trials")


def to_search(project: Project, **params: object) -> None:
    """Commit in the project parameters, and to search for the learning rate alone."""
    (project.path / search.SPACE_FILE).write_text("lr: {low: 0.001, high: 0.02, log: true}\n")
    project.set_params(**params)
    project.commit("to search")


def left_by(project: Project) -> tuple[str, list]:
    """What Git says of branch and files, and the folders of experiments that are still there."""
    folders = [path.name for path in (project.path / ".dvc/tmp/exps/standalone").iterdir() if path.name != "run"]
    return project.run("git", "status", "--short", "--branch").stdout, folders


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_search_of_three_trials_that_is_killed_in_the_second_goes_on_in_the_midst_of_it(trained, number):
    to_search(trained, epochs=0.3, checkpoint_minutes=1e-4)
    process, before = trained.start(*SEARCH, "3"), ""
    for line in process.stdout:
        before += line
        if line.startswith("search-1: lr="):
            while not list((trained.path / ".dvc/tmp/checkpoints").glob("*/*.pt")):
                time.sleep(0.1)
            os.killpg(process.pid, number)
    process.wait()
    if number == signal.SIGINT:
        assert before.endswith("interrupted: run the same command again to go on\n")
        assert left_by(trained) == ("## main\n", [])

    after = trained.run(*SEARCH, "3").stdout

    assert re.findall(r"^search-\d: lr=.*", before, re.M)[-1] == after.splitlines()[0]
    assert re.match(r"search-1: lr=.*\n  train: going on from step [1-9]", after)
    assert len(set(re.findall(r"^search-\d: lr=.*", before + after, re.M))) == 3
    best = re.findall(r"^(search-\d) +(\d\.\d+) .*  (lr=.*)", after, re.M)
    assert {name for name, *_ in best} == {"search-0", "search-1", "search-2"}
    assert best == sorted(best, key=lambda row: float(row[1]))
    assert after.splitlines()[-1] == f"apply it: dvc exp apply {best[0][0]}"
    trained.run("dvc", "exp", "apply", best[0][0])
    assert f"lr={float(re.search(r'^lr: (.*)', trained.read('params.yaml'), re.M)[1]):.5g}" == best[0][2]


@needs_posix
@pytest.mark.slow
def test_a_trial_worse_than_the_median_ends_early_and_leaves_all_as_it_was(trained):
    to_search(trained, epochs=1.2)
    file, commit = trained.path / search.STUDY_FILE, trained.run("git", "rev-parse", "HEAD").stdout.strip()
    file.parent.mkdir(parents=True)
    study = optuna.create_study(storage=f"sqlite:///{file}", study_name=commit)
    space = {"lr": FloatDistribution(0.001, 0.02, log=True)}
    good = {"value": 1e-4, "intermediate_values": {1: 1e-4}, "user_attrs": {"accuracy": 0.99}}
    study.add_trials([create_trial(params={"lr": lr / 1000}, distributions=space, **good) for lr in range(1, 6)])

    done = trained.run(*SEARCH, "6").stdout

    assert re.search(r"search-5: .*\n  epoch 1/1.2: .*\nsearch-5: ended early\n", done)
    assert "search-5" not in trained.run("dvc", "exp", "list", "--name-only").stdout
    assert left_by(trained) == ("## main\n", [])


@pytest.mark.parametrize(
    ("printed", "raised", "state"),
    [
        ("error: the loss is nan after step 20; try a smaller lr\n", None, TrialState.PRUNED),
        ("interrupted: step 3 is saved\nERROR: failed to reproduce 'train'\n", KeyboardInterrupt, TrialState.RUNNING),
        ("error: can't write models: No space left on device\n", UserError, TrialState.FAIL),
    ],
)
def test_a_trial_that_fails_ends_the_search_unless_its_parameters_are_to_blame(monkeypatch, printed, raised, state):
    monkeypatch.setattr(search, "find", lambda *_: None)
    monkeypatch.setattr(search, "run_experiment", lambda *_: printed)
    study = optuna.create_study()
    trial = study.ask({"lr": FloatDistribution(0.001, 0.02)})

    if raised:
        with pytest.raises(raised):
            search.run_trial(study, trial)
    else:
        search.run_trial(study, trial)

    assert study.trials[0].state == state


def test_a_signal_that_a_library_swallows_ends_the_search_all_the_same(monkeypatch):
    def run_trial(study: optuna.Study, trial: optuna.Trial) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            search.stop()
        study.tell(trial, 0.5)

    study = optuna.create_study()
    monkeypatch.setattr(search, "_stopped", [])
    monkeypatch.setattr(search, "git", lambda *_: "")
    monkeypatch.setattr(search, "run_trial", run_trial)
    monkeypatch.setattr(optuna, "create_study", lambda **_: study)

    with pytest.raises(KeyboardInterrupt):
        search.search(2, Params(**QUICK), {"lr": FloatDistribution(0.001, 0.02)})

    assert len(study.trials) == 1


@pytest.mark.parametrize(("space", "named"), [("rate: {low: 0.1, high: 0.2}\n", "rate"), ("lr: {low: 0.1}\n", "high")])
def test_a_space_that_makes_no_sense_is_an_error_that_names_it(tmp_path, monkeypatch, space, named):
    monkeypatch.setattr(search, "SPACE_FILE", tmp_path / "space.yaml")
    search.SPACE_FILE.write_text(space)

    with pytest.raises(UserError, match=named):
        search.load_space(Params(**QUICK))


def test_a_search_is_refused_without_a_validation_set_and_where_a_change_is_not_committed(project, fails):
    for name, value, said in (("validation_size", 0.0, "validation_size = 0"), ("lr", 0.5, "params.yaml")):
        project.set_params(**QUICK | {name: value})
        fails(project.run(*SEARCH, "1", ok=False), said)
