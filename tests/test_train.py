"""The stage ``train``: whatever happens to a run, its files are those of an undisturbed one."""

import json
from pathlib import Path

import pytest
import torch
from helpers.training import StopAt, small_model, write_small_project

from src.pipeline.process import UserError
from src.train.live import log_run, open_live
from src.train.stage import main

TEST_CURVE = Path("metrics/train/plots/metrics/test/loss.tsv")


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


class PutsBack(StopAt):
    """No signal; at its n-th look an older curve comes back, as `git checkout .` brings it."""

    @property
    def received(self) -> None:
        if super().received:
            TEST_CURVE.write_text("step\tloss\n1\t9.5\n")


def test_an_older_curve_that_comes_back_meanwhile_is_no_curve_of_this_run_which_goes_on_to_the_same_files(
    train_in, tmp_path
):
    undisturbed = train_in("undisturbed")
    with pytest.raises(UserError, match=r"loss\.tsv"):
        train_in("disturbed", PutsBack(10))
    assert not (tmp_path / "disturbed/models/model.safetensors").exists()

    files = train_in("disturbed")

    assert files == undisturbed
    assert "models/model.safetensors" in files
    curve = files["metrics/train/plots/metrics/validation/loss.tsv"].decode().splitlines()
    assert [row.split("\t")[0] for row in curve] == ["step", "1", "2"]
    assert list((tmp_path / "disturbed/.dvc/tmp/checkpoints").iterdir()) == []


def test_without_a_validation_set_all_images_are_trained_on_and_its_curves_are_there_and_empty(train_in):
    files = train_in("project", validation_size=0.0)

    metrics = json.loads(files["metrics/train/metrics.json"])
    assert "validation" not in metrics
    assert metrics["training_images"] == 96
    assert files["metrics/train/plots/metrics/validation/loss.tsv"] == b"step\tloss\n"


@pytest.mark.skipif(not has_accelerator(), reason="needs an accelerator")
def test_an_accelerator_trains_as_the_cpu_does(train_in):
    losses = {}
    for device in ("cpu", "auto"):
        files = train_in(device, device=device)
        losses[device] = json.loads(files["metrics/train/metrics.json"])["train"]["loss"]

    assert json.loads(files["models/run.json"])["device"] != "cpu"
    assert losses["auto"] == pytest.approx(losses["cpu"], rel=0.02)


# What dvclive writes


def test_metrics_that_cannot_be_written_are_an_error_that_names_them(in_project):
    with pytest.raises(UserError, match="metrics/train"), open_live(writes=True) as live:
        (in_project.path / "metrics/train").rename(in_project.path / "metrics/gone")
        (in_project.path / "metrics/train").write_text("in its place")
        log_run(live, dataset="sample")


def test_a_process_that_is_not_the_main_one_writes_no_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with open_live(writes=False) as live:
        log_run(live, dataset="mnist")

    assert list(tmp_path.iterdir()) == []
