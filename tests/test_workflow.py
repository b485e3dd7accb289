"""The workflow as its users run it: real commands in a temporary clone, on 5,000 real digits."""

import json
import re

import pytest
from helpers.offline import require_offline
from helpers.project import slow, stages_run

METRICS = ("metrics/train/metrics.json", "metrics/evaluate/metrics.json")


def test_repro_trains_on_the_sample_and_says_so(trained_once):
    output = trained_once.repro.stdout
    train, run = (json.loads(trained_once.read(name)) for name in ("metrics/train/metrics.json", "models/run.json"))

    assert stages_run(output) == ["download", "train", "evaluate", "report"]
    assert re.search(r"^epoch 1/1: train [\d.]+ [\d.]+%, validation [\d.]+ [\d.]+%, test [\d.]+ [\d.]+%", output, re.M)
    used = {"dataset": "sample", "initial_weights": "imagenet_cntk"}
    assert train.items() >= used.items()
    assert run.items() >= (used | {"device": "cpu", "network": "resnet18", "processes": 1}).items()
    assert f"train: on cpu, {run['precision']}, {run['threads']} thread" in output
    assert "test" not in train  # evaluate has the test's
    assert train["training_images"] == 3800  # 5% are held out
    assert train["validation"]["accuracy"] > 0.93  # after one epoch: statistics of the averaged weights' own
    assert train["step"] == 1  # epochs are counted from 1
    assert "WARNING" not in (output + trained_once.repro.stderr).upper()


def test_the_two_stages_agree_on_the_test_set(trained_once):
    test = json.loads(trained_once.read("metrics/evaluate/metrics.json"))["test"]
    _, loss = trained_once.read("metrics/train/plots/metrics/test/loss.tsv").splitlines()
    _, accuracy = trained_once.read("metrics/train/plots/metrics/test/accuracy.tsv").splitlines()
    # On a processor with bf16 the curve is in that; the final figures are in fp32 everywhere.
    exact = json.loads(trained_once.read("models/run.json"))["precision"] == "float32"

    assert float(accuracy.split("\t")[1]) == pytest.approx(test["accuracy"], abs=0 if exact else 0.02)
    assert float(loss.split("\t")[1]) == pytest.approx(test["loss"], rel=1e-5 if exact else 0.1)


def test_exp_run_with_more_epochs_trains_longer_and_downloads_nothing(longer_once):
    curve = longer_once.read("metrics/train/plots/metrics/test/loss.tsv").splitlines()
    diff = json.loads(longer_once.run("dvc", "metrics", "diff", "HEAD", "--json").stdout)

    assert stages_run(longer_once.output) == ["train", "evaluate"]
    assert len(curve) == 3
    assert diff["metrics/train/metrics.json"]["step"] == {"old": 1, "new": 2, "diff": 1}
    assert diff["metrics/evaluate/metrics.json"]["test.loss"]["diff"] != 0


def test_outputs_name_no_folder_of_this_machine(trained_once):
    names = ["dvc.lock", "data/manifest.json", "models/run.json", "metrics/report.md", *METRICS]

    contents = "\n".join(trained_once.read(name) for name in names)

    assert str(trained_once.path) not in contents


def test_a_repository_without_a_commit_is_told_to_make_one(trained, fails):
    trained.run("git", "update-ref", "-d", "HEAD")

    fails(trained.run("python", "-m", "src.train", ok=False), "first commit", "git commit")


@pytest.mark.parametrize("stage", [slow("train"), slow("evaluate"), "report"])
def test_a_stage_asks_no_network_and_leaves_nothing_in_the_users_home(trained, tmp_path_factory, stage):
    trained.set_params(epochs=0.1)

    require_offline(trained, tmp_path_factory.mktemp("offline"), "-m", f"src.{stage}")


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("params.yaml", "lr: 0.004", "lr: 0.002", "params.yaml: lr"),
        slow("src/train/trainer.py", "CHECK_EVERY = 20", "CHECK_EVERY = 10", "src/train/trainer.py"),
    ],
)
def test_an_edit_made_while_a_stage_runs_never_stands_in_the_lock_as_what_it_ran_with(trained, file, old, new, named):
    trained.set_params(seed=1, epochs=0.05, ema_decay=0)  # the average's statistics take most of so short a run
    lock, before = trained.read("dvc.lock"), trained.read(file)
    lines = []

    with trained.start("dvc", "repro", "train") as process:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("train: 3,800"):
                (trained.path / file).write_text(before.replace(old, new))

    assert process.returncode != 0
    assert [line for line in lines if line.startswith(f"error: {named} ")], lines
    assert trained.read("dvc.lock") == lock
    assert not (trained.path / "models/model.safetensors").exists()
    (trained.path / file).write_text(before)
    assert "going on from step" in trained.run("dvc", "repro", "train").stdout  # no work is lost


def test_a_parameter_that_was_edited_after_the_training_stands_in_no_report_of_it(trained):
    lock = trained.path / "dvc.lock"
    lock.write_text(re.sub(r"lr: .*", "lr: 1e-05", lock.read_text()))  # as DVC writes it
    trained.set_params(lr=0.00001)
    trained.run("dvc", "repro", "--single-item", "report")
    trained.set_params(epochs=7)

    failed = trained.run("dvc", "repro", "--single-item", "report", ok=False)

    assert "error: epochs changed from 1 to 7 after train ran" in failed.stderr
    assert not (trained.path / "metrics/report.md").exists()
