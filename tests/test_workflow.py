"""The workflow as its users run it: real commands in a temporary clone, on 5,000 real digits."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import stages_run
from dvc.repo import Repo

from src.pipeline.params import Params

ROOT = Path(__file__).resolve().parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
METRICS = ("metrics/train/metrics.json", "metrics/evaluate/metrics.json", "metrics/export/metrics.json")
WITHOUT_EFFECT = {"checkpoint_minutes"}  # read by a stage, but no result depends on it
OTHER_VALUES = {  # for each parameter a value that is not the tests' default
    "dataset": "mnist", "offline_fallback": False, "validation_size": 0.1, "pretrained": True, "conv1_init": "new",
    "image_size": 32, "augment": False, "max_rotation": 5.0, "max_shift": 1.0, "max_scaling": 0.2, "seed": 1,
    "epochs": 2, "batch_size": 64, "optimizer": "adamw", "lr": 0.005, "weight_decay": 0.01, "schedule": "constant",
    "label_smoothing": 0.1, "ema_decay": 0.9, "precision": "fp32", "device": "cpu", "threads": 1,
    "checkpoint_minutes": 1, "launcher": "python -u -m",
}  # fmt: skip


def imports(module: str) -> set[str]:
    """The project's source files that a source file imports, directly or not, itself included."""
    found, todo = set(), [module]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("src."):
                todo.append(node.module.replace(".", "/") + ".py")
    return found


def params_listed(stage: str) -> set[str]:
    """The parameters that dvc.yaml lists for a stage; the whole file is all of them."""
    params = STAGES[stage]["params"]
    return set(Params.model_fields) if params == [{"params.yaml": None}] else set(params)


def params_depended_on(stage: str) -> set[str]:
    """The parameters of which a change runs a stage again: those listed and those in its command."""
    return {*params_listed(stage), *re.findall(r"\$\{(\w+)\}", STAGES[stage]["cmd"])}


def params_read(files: set[str]) -> set[str]:
    """The parameters with an effect on results that source files read, as ``params.<name>``, or all by a loop."""
    nodes = [node for file in files for node in ast.walk(ast.parse((ROOT / file).read_text()))]
    if any(isinstance(node, ast.For | ast.comprehension) and ast.unparse(node.iter) == "params" for node in nodes):
        return set(Params.model_fields)
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "params"}
    return names & set(Params.model_fields) - WITHOUT_EFFECT


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_each_source_file_that_it_imports(stage):
    listed = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}
    assert listed == imports(f"src/{stage}.py")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_each_parameter_that_it_reads(stage):
    assert params_listed(stage) == params_read(imports(f"src/{stage}.py"))


def test_every_parameter_is_read_by_a_stage_and_explained():
    stages = STAGES.keys() - {"report"}  # which shows them all, whether or not they do anything
    assert set().union(*map(params_depended_on, stages)) == set(Params.model_fields) - WITHOUT_EFFECT
    lines = [line for line in (ROOT / "params.yaml").read_text().splitlines() if re.match(r"\w", line)]
    assert [line.partition(":")[0] for line in lines if "  # " in line] == list(Params.model_fields)


def test_repro_trains_on_the_sample_and_says_so(trained_once):
    assert stages_run(trained_once.repro.stdout) == ["download", "train", "evaluate", "report", "export"]
    manifest = json.loads(trained_once.read("data/manifest.json"))
    assert (manifest["dataset"], manifest["training_images"], manifest["test_images"]) == ("sample", 4000, 1000)
    train = json.loads(trained_once.read("metrics/train/metrics.json"))
    assert train["training_images"] == 3800  # 5% are held out
    assert train["initial_weights"] == "random"
    assert set(train) >= {"train", "validation", "test"}
    assert re.search(
        r"^epoch 1/1: train loss .* validation loss .* test loss .* accuracy", trained_once.repro.stdout, re.M
    )


def test_the_two_stages_agree_on_the_test_set(trained_once):
    train = json.loads(trained_once.read("metrics/train/metrics.json"))["test"]
    evaluate = json.loads(trained_once.read("metrics/evaluate/metrics.json"))["test"]
    assert evaluate["images"] == 1000
    assert train["accuracy"] == evaluate["accuracy"] == (1000 - evaluate["errors"]) / 1000
    assert train["loss"] == pytest.approx(evaluate["loss"], rel=1e-5)
    rows = trained_once.read("metrics/evaluate/predictions.csv").splitlines()
    assert rows[0] == "actual,predicted"
    assert sum(actual != predicted for actual, predicted in (row.split(",") for row in rows[1:])) == evaluate["errors"]


def test_repro_again_runs_nothing(trained):
    assert "up to date" in trained.run("dvc", "repro").stdout


def test_forced_repro_gives_the_same_bytes(trained):
    before = trained.read("dvc.lock")
    assert stages_run(trained.run("dvc", "repro", "-f").stdout) == ["download", "train", "evaluate", "report", "export"]
    assert trained.read("dvc.lock") == before


def test_exp_run_with_more_epochs_trains_longer_and_downloads_nothing(trained):
    done = trained.run("dvc", "exp", "run", "-S", "epochs=2")
    assert stages_run(done.stdout) == ["train", "evaluate", "report", "export"]
    assert json.loads(trained.read("metrics/train/metrics.json"))["step"] == 1
    assert len(trained.read("metrics/train/plots/metrics/test/loss.tsv").splitlines()) == 3
    trained.commit("two epochs")
    diff = json.loads(trained.run("dvc", "metrics", "diff", "HEAD~1", "--json").stdout)
    assert diff["metrics/train/metrics.json"]["step"] == {"old": 0, "new": 1, "diff": 1}
    assert diff["metrics/evaluate/metrics.json"]["test.loss"]["diff"] != 0


def test_a_parameter_without_effect_on_the_data_reruns_no_training(trained):
    trained.set_params(offline_fallback=False)
    assert stages_run(trained.run("dvc", "repro").stdout) == ["download", "report"]


def test_a_changed_parameter_concerns_just_the_stages_that_read_it(trained, monkeypatch):
    monkeypatch.chdir(trained.path)
    params = trained.read("params.yaml")
    assert set(OTHER_VALUES) == set(Params.model_fields)
    for name, value in OTHER_VALUES.items():
        trained.set_params(**{name: value})
        with Repo() as repo:
            changed = {stage for stage in STAGES if repo.status(targets=[stage])}
        assert changed == {stage for stage in STAGES if name in params_depended_on(stage)}, name
        (trained.path / "params.yaml").write_text(params)


def test_metrics_and_plots_are_where_dvc_looks(trained_once):
    shown = json.loads(trained_once.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown) == set(METRICS)
    plots = json.loads(trained_once.run("dvc", "plots", "show", "--json").stdout)
    assert not plots.get("errors")
    pictures = {name for name, (plot,) in plots["data"].items() if plot["type"] == "image"}
    assert {trained_once.path / name for name in pictures} == set((trained_once.path / "metrics").rglob("*.png"))
    points = {
        name: plot["content"]["data"]["values"] for name, (plot,) in plots["data"].items() if name not in pictures
    }
    for curves in ("Loss by epoch", "Accuracy by epoch"):
        assert {point["filename"].partition("/")[0] for point in points.pop(curves)} == {"train", "validation", "test"}
    confusion = points.pop("metrics/evaluate/predictions.csv")
    assert len(confusion) == 1000 and set(confusion[0]) >= {"actual", "predicted"}
    assert not points


def test_outputs_name_no_folder_of_this_machine(trained_once):
    for name in ["dvc.lock", "data/manifest.json", *METRICS, "metrics/report.md"]:
        assert str(trained_once.path) not in trained_once.read(name)


def test_a_bad_parameter_stops_the_run_and_touches_no_output(trained, fails):
    model = (trained.path / "models/model.safetensors").read_bytes()
    metrics = trained.read("metrics/train/metrics.json")
    trained.set_params(epochs=0)
    fails(trained.run("dvc", "repro", ok=False), "epochs = 0")
    assert (trained.path / "models/model.safetensors").read_bytes() == model
    assert trained.read("metrics/train/metrics.json") == metrics


def test_a_repository_without_a_commit_is_told_to_make_one(trained, fails):
    trained.run("git", "update-ref", "-d", "HEAD")
    fails(trained.run("python", "-m", "src.train", ok=False), "first commit", "git commit")


def test_a_missing_model_is_a_clear_line(trained, fails):
    (trained.path / "models/model.safetensors").unlink()
    fails(trained.run("python", "-m", "src.evaluate", ok=False), "models/model.safetensors", "dvc repro train")


def test_a_changed_data_file_is_a_clear_line(trained, fails):
    labels = trained.path / "data/mnist/t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-1])
    fails(trained.run("python", "-m", "src.evaluate", ok=False), labels.name, "dvc repro download")


def test_without_a_network_the_download_goes_on_with_the_sample_and_warns(in_project, monkeypatch, capsys):
    from src.download import __main__ as download

    in_project.set_params(dataset="mnist", pretrained=True)
    closed = "http://127.0.0.1:9/"  # the discard port: nothing listens
    monkeypatch.delenv("MNIST_MIRROR", raising=False)
    monkeypatch.setattr(download.MNIST, "mirrors", [closed])
    monkeypatch.delenv("RESNET18_WEIGHTS", raising=False)
    monkeypatch.setattr("src.download.fetch.BACKOFF", 0.01)
    monkeypatch.setattr(download, "WEIGHTS_URL", closed + download.WEIGHTS_URL.rpartition("/")[2])
    download.main()
    warning = capsys.readouterr().out
    assert "SAMPLE" in warning and "RANDOM" in warning and closed in warning
    manifest = json.loads(in_project.read("data/manifest.json"))
    assert (manifest["dataset"], manifest["initial_weights"]) == ("sample", "random")


def test_without_a_network_and_without_fallback_the_download_names_mirrors_and_ways_out(
    in_project, monkeypatch, capsys
):
    from src.download import __main__ as download

    in_project.set_params(dataset="mnist", offline_fallback=False)
    monkeypatch.setenv("MNIST_MIRROR", "no/such/folder")
    monkeypatch.setattr(download.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr("src.download.fetch.BACKOFF", 0.01)
    with pytest.raises(SystemExit) as exit_:
        download.main()
    message = str(exit_.value)
    assert "no/such/folder/train-images-idx3-ubyte.gz: No such file" in message
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz: Connection refused" in message
    for way_out in ("MNIST_MIRROR", "dataset=sample", "offline_fallback=true"):
        assert way_out in message
    assert not (in_project.path / "data/manifest.json").exists()


def test_the_full_mnist_passes_through_the_download(in_project, full_mnist, monkeypatch):
    from src.download import __main__ as download
    from src.mnist.images import load_test_images, load_training_images
    from src.mnist.manifest import load_manifest

    in_project.set_params(dataset="mnist", offline_fallback=False)
    monkeypatch.setenv("MNIST_MIRROR", str(full_mnist))
    monkeypatch.setattr(download.MNIST, "mirrors", [])
    download.main()
    manifest = load_manifest()
    assert (manifest.dataset, manifest.training_images, manifest.test_images) == ("mnist", 60_000, 10_000)
    assert load_training_images(manifest).labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert load_test_images(manifest).labels[:5].tolist() == [7, 2, 1, 0, 4]
