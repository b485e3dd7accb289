"""The stage ``train``: whatever happens to a run, its files are those of an undisturbed one."""

import json

import pytest
import torch
from helpers.training import Killed, StopAt, small_model, write_small_project

from src.pipeline.process import UserError
from src.train.stage import main
from src.train.live import open_live


def has_accelerator() -> bool:
    """Whether there is one, and it works: a virtual Mac's has no memory."""
    try:
        torch.zeros(1, device=torch.accelerator.current_accelerator(check_available=True) or "cpu")
    except RuntimeError:
        return False
    return torch.accelerator.is_available()


@pytest.fixture
def train_in(tmp_path, monkeypatch, digits, torch_as_it_was):
    """A function that runs the stage in a folder by this name, disturbed as asked, and reads what it wrote."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr("src.train.stage.initial_model", lambda params, manifest: small_model())

    def train(name, stop=None, **values):
        folder = tmp_path / name
        if not folder.exists():
            write_small_project(folder, digits, **values)
        monkeypatch.chdir(folder)
        monkeypatch.setattr("src.train.stage.StopSignal", lambda: stop or StopAt())
        main()
        files = [*folder.glob("models/**/*"), *folder.glob("metrics/**/*"), *folder.glob(".dvc/tmp/checkpoints/*")]
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files if not file.is_dir()}

    return train


@pytest.mark.parametrize("look", [1, 3, 5, 7, 8, 10, 14])
def test_a_stopped_run_that_goes_on_ends_with_the_files_of_an_undisturbed_one(train_in, look):
    undisturbed = train_in("undisturbed")
    with pytest.raises(SystemExit) as stopped:
        train_in("stopped", StopAt(look))

    files = train_in("stopped")

    assert stopped.value.code == 128 + 15
    assert files == undisturbed
    assert "models/model.safetensors" in files


@pytest.mark.parametrize("look", [1, 3, 5, 7, 8, 10, 14])
def test_a_killed_run_that_goes_on_ends_with_the_files_of_an_undisturbed_one(train_in, look):
    undisturbed = train_in("undisturbed")
    with pytest.raises(Killed):
        train_in("killed", StopAt(look, kills=True))

    files = train_in("killed")

    assert files == undisturbed
    assert "models/model.safetensors" in files


def test_a_run_that_is_through_leaves_no_checkpoint(train_in, tmp_path):
    with pytest.raises(SystemExit):
        train_in("stopped", StopAt(3))

    files = train_in("stopped")

    assert [name for name in files if name.startswith(".dvc")] == []
    assert list((tmp_path / "stopped/.dvc/tmp/checkpoints").iterdir()) == []


def test_a_run_that_went_on_has_the_curves_of_all_epochs(train_in):
    with pytest.raises(Killed):
        train_in("killed", StopAt(10, kills=True))

    files = train_in("killed")

    for name in ("train", "validation", "test"):
        for metric in ("loss", "accuracy"):
            header, *rows = files[f"metrics/train/plots/metrics/{name}/{metric}.tsv"].decode().splitlines()
            assert header.split("\t") == ["step", metric]
            assert [row.split("\t")[0] for row in rows] == ["1", "2"]


def test_without_a_validation_set_its_curves_are_there_and_empty(train_in):
    files = train_in("project", validation_size=0.0)

    assert files["metrics/train/plots/metrics/validation/loss.tsv"] == b"step\tloss\n"
    assert files["metrics/train/plots/metrics/validation/accuracy.tsv"] == b"step\taccuracy\n"
    assert "validation" not in json.loads(files["metrics/train/metrics.json"])


def test_the_runs_description_says_what_it_used(train_in):
    files = train_in("project")

    run = json.loads(files["models/run.json"])
    assert (run["device"], run["precision"], run["threads"], run["processes"]) == ("cpu", "float32", 1, 1)
    assert (run["dataset"], run["initial_weights"]) == ("sample", "random")
    assert run["torch"] == torch.__version__


@pytest.mark.skipif(not has_accelerator(), reason="needs an accelerator")
def test_an_accelerator_trains_as_the_cpu_does(train_in):
    losses = {}
    for device in ("cpu", "auto"):
        files = train_in(device, device=device)
        losses[device] = json.loads(files["metrics/train/metrics.json"])["train"]["loss"]

    assert json.loads(files["models/run.json"])["device"] != "cpu"
    assert losses["auto"] == pytest.approx(losses["cpu"], rel=0.02)


def test_an_error_of_the_training_is_not_said_to_be_one_of_the_metrics(project, monkeypatch):
    monkeypatch.chdir(project.path)

    with pytest.raises(BrokenPipeError), open_live(writes=True):
        raise BrokenPipeError


def test_metrics_that_cannot_be_written_are_an_error_that_names_them(project, monkeypatch):
    monkeypatch.chdir(project.path)

    with pytest.raises(UserError, match="can't write metrics/train"), open_live(writes=True) as live:
        (project.path / "metrics/train").rename(project.path / "metrics/gone")
        (project.path / "metrics/train").write_text("in its place")
        live.log_run(dataset="sample")


def test_a_marker_that_another_run_has_removed_ends_no_training(project, monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory", ".dvc/tmp/exps/run/DVCLIVE_STEP_COMPLETED")

    monkeypatch.chdir(project.path)
    monkeypatch.setattr("dvclive.live.cleanup_dvclive_step_completed", gone)

    with open_live(writes=True) as live:
        live.log_run(dataset="mnist")

    assert json.loads((project.path / "metrics/train/metrics.json").read_text())["dataset"] == "mnist"
