"""DVC as its users know it: the run cache, live metrics, tables that can be read, files that do not count."""

import json
import re
import time

import pytest
from helpers.project import Project, stages_run

from src.pipeline.paths import SETS


def restored(output: str) -> list[str]:
    """The stages that the run cache served, from what a command of DVC's printed."""
    return re.findall(r"Stage '(\w+)' is cached - skipping run", output)


def shown_metrics(project: Project) -> dict[str, dict]:
    """What ``dvc metrics show`` gives, by file."""
    shown = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    return {name: entry.get("data", {}) for name, entry in shown.items()}


def stages_changed(project: Project) -> list[str]:
    """The stages that ``dvc status`` names."""
    return re.findall(r"^(\w+):$", project.run("dvc", "status").stdout, re.M)


def leaves(values: dict, prefix: str = "") -> list[str]:
    """The names of the figures in a metrics file, such as ``test.loss``."""
    names = []
    for name, value in values.items():
        names += leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return names


@pytest.mark.slow
def test_a_repeated_experiment_is_restored_and_trains_nothing(longer):
    lock = longer.read("dvc.lock")
    longer.run("git", "checkout", "-q", ".")
    longer.run("dvc", "checkout", "-q")

    done = longer.run("dvc", "exp", "run", "-n", "again", "-S", "epochs=2", "evaluate")

    assert stages_run(done.stdout) == []
    assert restored(done.stdout) == ["train", "evaluate"]
    assert longer.read("dvc.lock") == lock


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
def test_the_download_is_never_served_by_the_run_cache(trained):
    trained.set_params(offline_fallback=False)
    trained.run("dvc", "repro", "download")

    trained.set_params(offline_fallback=True)
    done = trained.run("dvc", "repro", "download")

    assert stages_run(done.stdout) == ["download"]


def test_metrics_are_there_while_the_run_goes_on(longer_once):
    watched = longer_once.watched[""]["data"]["metrics/train/metrics.json"]["data"]

    assert longer_once.still_running
    assert 1 <= watched["step"] <= 2  # a fast machine is through with the second epoch by then
    assert 0 < watched["train"]["accuracy"] < 1


def test_an_experiment_can_be_sorted_by_its_test_accuracy(longer_once):
    done = longer_once.run("dvc", "exp", "show", "--sort-by", "test.accuracy", "--csv")

    assert "longer" in done.stdout
    assert "ambiguous" not in done.stderr.lower()


def test_each_figure_has_one_name_in_one_file(trained_once):
    shown = shown_metrics(trained_once)

    names = [name for values in shown.values() for name in leaves(values)]

    stages = ("train", "evaluate", "outliers", "export")
    assert set(shown) == {f"metrics/{stage}/metrics.json" for stage in stages}
    assert len(names) == len(set(names)) <= 17
    assert {"train.loss", "validation.accuracy", "test.loss", "test.accuracy", "dataset", "initial_weights"} <= set(
        names
    )


def test_the_table_of_experiments_has_few_columns(longer_once):
    header = longer_once.run("dvc", "exp", "show", "--only-changed", "--csv").stdout.splitlines()[0].split(",")

    hidden = {"rev", "typ", "parent", "State", "Executor", "Experiment", "Created"}
    assert set(header) - hidden == {
        "train.loss", "train.accuracy", "validation.loss", "validation.accuracy", "step",
        "test.loss", "test.accuracy", "test.errors", "test.calibration_error", "epochs",
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_without_a_validation_set_shows_all_there_is_and_complains_of_nothing(trained):
    trained.run("dvc", "exp", "run", "-n", "without", "-S", "validation_size=0")

    shown = trained.run("dvc", "plots", "show")
    compared = trained.run("dvc", "plots", "diff", "HEAD")
    differences = trained.run("dvc", "metrics", "diff")
    experiments = trained.run("dvc", "exp", "show", "--csv")
    report = trained.read("metrics/report.md")

    for done in (shown, compared):
        assert "failed" not in (done.stdout + done.stderr).lower()
    assert "validation.loss" in differences.stdout
    assert "without" in experiments.stdout
    assert "| validation |" not in report
    assert trained.read("metrics/train/plots/metrics/validation/loss.tsv") == "step\tloss\n"


def test_a_changed_picture_concerns_the_report_alone(trained):
    source = trained.path / "src/report/figures.py"
    source.write_text(source.read_text().replace('marker="D"', 'marker="o"'))

    assert stages_changed(trained) == ["report"]


def test_what_systems_and_editors_leave_beside_the_sources_counts_for_nothing(trained):
    for name in (
        "__pycache__/x.cpython-311.pyc",
        "stray.pyc",
        ".DS_Store",
        "._trainer.py",
        ".trainer.py.swp",
        "trainer.py~",
    ):
        file = trained.path / "src/train" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"left by somebody")

    done = trained.run("dvc", "status")

    assert "up to date" in done.stdout


def test_a_new_source_file_counts(trained):
    (trained.path / "src/train/new.py").write_text("")

    assert stages_changed(trained) == ["train"]


@pytest.mark.slow
def test_a_killed_run_leaves_its_curves_and_the_next_one_makes_them_whole(trained):
    trained.set_params(epochs=3)
    with trained.start("python", "-m", "src.train") as process:
        for line in process.stdout:
            if line.startswith("epoch 2/3"):
                while "\n2\t" not in trained.read("metrics/train/plots/metrics/test/loss.tsv"):
                    time.sleep(0.005)  # dvclive writes after the line
                process.kill()
    left = trained.read("metrics/train/plots/metrics/test/loss.tsv").splitlines()

    done = trained.run("python", "-m", "src.train")

    assert [row.split("\t")[0] for row in left] == ["step", "1", "2"]
    assert "going on from step" in done.stdout
    for name in SETS:
        whole = trained.read(f"metrics/train/plots/metrics/{name}/loss.tsv").splitlines()
        assert [row.split("\t")[0] for row in whole] == ["step", "1", "2", "3"]
    assert trained.read("metrics/train/plots/metrics/test/loss.tsv").splitlines()[:3] == left
