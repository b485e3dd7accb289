"""DVC as its users know it: the run cache, live metrics, tables that can be read, files that do not count."""

import json
import re

import pytest
from helpers.project import stages_run


def restored(output: str) -> list[str]:
    """The stages that the run cache served, from what a command of DVC's printed."""
    return re.findall(r"Stage '(\w+)' is cached - skipping run", output)


@pytest.mark.slow
def test_a_wrong_parameter_is_mended_without_training(trained, fails):
    lock, model = trained.read("dvc.lock"), (trained.path / "models/model.safetensors").read_bytes()
    metrics = trained.read("metrics/train/metrics.json")
    trained.set_params(epochs=0)
    fails(trained.run("dvc", "repro", ok=False), "epochs = 0")

    trained.run("git", "checkout", "params.yaml")
    done = trained.run("dvc", "repro")

    assert stages_run(done.stdout) == []
    assert trained.read("dvc.lock") == lock
    assert (trained.path / "models/model.safetensors").read_bytes() == model
    assert trained.read("metrics/train/metrics.json") == metrics


def test_going_back_to_earlier_parameters_trains_nothing(longer):
    longer.set_params(epochs=1)

    done = longer.run("dvc", "repro", "train")

    assert restored(done.stdout) == ["train"]


@pytest.mark.slow
def test_the_download_is_never_served_by_the_run_cache_and_the_same_data_train_nothing_again(trained):
    trained.set_params(offline_fallback=False)
    first = trained.run("dvc", "repro")

    trained.set_params(offline_fallback=True)
    second = trained.run("dvc", "repro")

    for done in (first, second):
        assert stages_run(done.stdout) == ["download", "report"]


def test_metrics_are_there_while_the_run_goes_on(longer_once):
    watched = longer_once.watched[""]["data"]["metrics/train/metrics.json"]["data"]

    assert longer_once.still_running
    assert 1 <= watched["step"] <= 2  # a fast machine is through with the second epoch by then
    assert 0 < watched["train"]["accuracy"] < 1


def test_each_figure_has_one_name_in_one_file(trained_once):
    shown = json.loads(trained_once.run("dvc", "metrics", "diff", "--all", "--json").stdout)

    names = [name for values in shown.values() for name in values]

    assert set(shown) == {"metrics/train/metrics.json", "metrics/evaluate/metrics.json"}
    assert len(names) == len(set(names))
    expected = {"train.loss", "validation.accuracy", "test.loss", "test.accuracy", "dataset", "initial_weights"}
    assert expected <= set(names)


def test_the_table_of_experiments_has_few_columns_and_can_be_sorted_by_the_test_accuracy(longer_once):
    done = longer_once.run("dvc", "exp", "show", "--only-changed", "--sort-by", "test.accuracy", "--csv")

    header, *rows = (line.split(",") for line in done.stdout.splitlines())

    hidden = {"rev", "typ", "parent", "State", "Executor", "Experiment", "Created"}
    model = {"models/model.safetensors"}  # which evaluate depends on
    assert "longer" in [name for row in rows for name in row]
    assert "ambiguous" not in done.stderr.lower()
    assert set(header) - hidden - model == {
        "train.loss", "train.accuracy", "validation.loss", "validation.accuracy", "step",
        "test.loss", "test.accuracy", "test.errors", "test.calibration_error", "epochs",
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_without_a_validation_set_shows_all_there_is_and_complains_of_nothing(trained):
    trained.run("dvc", "exp", "run", "-n", "without", "-S", "validation_size=0")

    shown = trained.run("dvc", "plots", "show")
    compared = trained.run("dvc", "plots", "diff", "HEAD")

    for done in (shown, compared):
        assert "failed" not in (done.stdout + done.stderr).lower()
    assert "validation.loss" in trained.run("dvc", "metrics", "diff").stdout
    assert "without" in trained.run("dvc", "exp", "show", "--csv").stdout
    assert "| validation |" not in trained.read("metrics/report.md")
    assert trained.read("metrics/train/plots/metrics/validation/loss.tsv") == "step\tloss\n"


LEFT_LYING = ("__pycache__/x.cpython-311.pyc", "stray.pyc", ".DS_Store", "._a.py", ".a.py.swp", "a.py~")


@pytest.mark.parametrize(
    ("files", "stages"),
    [
        (["src/report/figures.py"], ["report"]),
        (["src/train/new.py"], ["train"]),
        ([f"src/train/{name}" for name in LEFT_LYING], []),
    ],
    ids=["a change", "a new file", "what systems and editors leave"],
)
def test_a_stage_runs_again_for_its_sources_alone(trained, files, stages):
    for file in files:
        (trained.path / file).parent.mkdir(exist_ok=True)
        with (trained.path / file).open("a") as source:
            source.write("# a line\n")

    changed = trained.run("dvc", "status", "dvc.yaml").stdout

    assert re.findall(r"^(\w+):$", changed, re.M) == stages
