"""The weights that training starts from, whose they may be and how they are checked; and the trained model's file."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.project import QUICK, ROOT, quick_params
from helpers.training import FROM_RANDOM_WEIGHTS, MNIST_INPUT, differences
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet18

from src.download.int8 import dequantise, quantise
from src.download.stage import main as download
from src.images.dataset import DIGITS, load_manifest
from src.pipeline.files import sha256
from src.pipeline.process import UserError
from src.resnet.model_file import encode_model, load_model, model_metadata
from src.resnet.network import build_model
from src.train.stage import initial_model
from src.weights.state_dict import load_weights, read_weights

CONV1, FC = "conv1.weight", ["fc.weight", "fc.bias"]


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state dict of ResNet-18 with three channels and 1,000 classes, as torchvision publishes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return resnet18().state_dict()


def without(state: dict, part: str) -> dict:
    return {name: tensor for name, tensor in state.items() if part not in name}


def grey_of_ten_classes(state: dict) -> dict:
    cut = {CONV1: state[CONV1][:, :1]} | {name: state[name][:10] for name in FC}
    return {name: tensor.half() for name, tensor in (state | cut).items()}


def changed(model: nn.Module, state: dict) -> list[str]:
    """The names of a model's tensors that are not those of a file."""
    ours = without(model.state_dict(), "num_batches_tracked")
    return [name for name in ours if name not in state or not torch.equal(ours[name], state[name].float())]


def prefixed(state: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def checkpoint(state: dict) -> dict:
    wrapped = prefixed(state, "model.backbone.") | {"model.head.weight": torch.zeros(1)}
    return {"epoch": 3, 0: None, "optimizer": {"state": {0: torch.zeros(1)}}, "state_dict": wrapped}


@pytest.mark.parametrize(
    ("write", "file", "shape", "stored", "expected"),
    [
        (torch.save, "w.pth", dict, dict, [CONV1, *FC]),
        (torch.save, "w.pth", lambda state: without(state, "num_batches_tracked"), dict, [CONV1, *FC]),
        (torch.save, "w.pth", dict, checkpoint, [CONV1, *FC]),
        (save_file, "w.safetensors", grey_of_ten_classes, lambda state: prefixed(state, "module._orig_mod."), []),
        (save_file, "w.safetensors", lambda state: without(state, "fc."), dict, [CONV1, *FC]),
    ],
)
def test_the_weights_of_any_resnet18_are_loaded(tmp_path, published, write, file, shape, stored, expected):
    state, model = shape(published), build_model("resnet18", 10)
    write(stored({name: tensor.contiguous() for name, tensor in state.items()}), tmp_path / file)

    load_weights(model, read_weights(tmp_path / file, "resnet18"), "sum")

    assert changed(model, state) == expected


@pytest.mark.parametrize("conv1_init", ["sum", "mean", "new"])
def test_conv1_sees_a_grey_image_as_the_rgb_network_does_or_stays_as_it_was(published, conv1_init):
    model, image = build_model("resnet18", 10), torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    kernels = published[CONV1].half()  # which are added up in single precision
    rgb = F.conv2d(image.expand(-1, 3, -1, -1), kernels.float(), stride=2, padding=3)
    expected = {"sum": rgb, "mean": rgb / 3, "new": model.conv1(image)}[conv1_init]

    load_weights(model, published | {CONV1: kernels}, conv1_init)

    torch.testing.assert_close(model.conv1(image), expected, rtol=1e-5, atol=1e-5)


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


ONE_NAN = torch.tensor([float("nan"), *[0.0] * 63])
WRONG = {  # what the file w.pth holds, and what the line names
    "one tensor too many": (lambda state: state | {"se.weight": torch.zeros(1)}, "se.weight"),
    "another shape": (lambda state: state | {"bn1.bias": torch.zeros(65)}, r"bn1.bias .*\(65,\), not \(64,\)"),
    "NaN": (lambda state: state | {"bn1.bias": ONE_NAN}, "bn1.bias .*NaN"),
    "a list": (lambda _: [torch.zeros(1)], "no state dict"),
    "a program": (lambda _: Trap(), ""),
}


@pytest.mark.parametrize(("content", "named"), WRONG.values(), ids=WRONG)
def test_a_file_of_something_else_is_one_line_that_names_what_is_wrong(
    tmp_path, monkeypatch, published, content, named
):
    monkeypatch.chdir(tmp_path)
    torch.save(content(published), "w.pth")

    with pytest.raises(UserError, match=f"^w.pth .*{named}[^\n]*$"):
        read_weights(Path("w.pth"), "resnet18")

    assert not Path("sprung").exists()


@pytest.fixture
def download_with(tmp_path, monkeypatch, published):
    """A function that runs ``download`` with these parameters, in a folder that has the user's own ``mine.pth``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    torch.save(published, "mine.pth")

    def run(**values):
        Path("params.yaml").write_text(json.dumps(QUICK | values))  # JSON is YAML
        download()

    return run


def test_the_projects_weights_are_unpacked_to_what_they_were_made_of_but_for_rounding(download_with, monkeypatch):
    shutil.copytree(ROOT / "data/imagenet", "data/imagenet")
    download_with(weights="imagenet")
    file = load_manifest().weights_file

    state = read_weights(file, "resnet18")
    again = dequantise(quantise(state))

    packed = load_file("data/imagenet/resnet18.safetensors")
    assert sum(tensor.dtype == torch.int8 for tensor in packed.values()) == 20
    for name, tensor in state.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-6, atol=0)  # rounded once, they stay as they are


def test_the_projects_weights_are_the_full_ones_to_half_a_step_of_each_channel():
    full = os.environ.get("FULL_WEIGHTS")
    if not full:
        pytest.skip("needs the weights before they were rounded: point FULL_WEIGHTS at their file")
    packed, expected = load_file(ROOT / "data/imagenet/resnet18.safetensors"), read_weights(Path(full), "resnet18")

    assert differences(quantise(expected), packed) == []
    for name, tensor in dequantise(packed).items():
        half_a_step = packed[f"{name}.scale"] / 2 if tensor.dim() > 1 else torch.tensor(0.0)
        assert ((tensor - expected[name]).abs() <= half_a_step * 1.001).all()


def test_training_starts_from_the_file_in_the_users_project_alone(download_with, published, monkeypatch, tmp_path):
    (tmp_path / "experiment").mkdir()
    monkeypatch.chdir(tmp_path / "experiment")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    save_file(published, tmp_path / "other.safetensors")
    download_with(weights="other.safetensors")
    download_with(weights="mine.pth")
    manifest = load_manifest()

    model = initial_model(quick_params(), manifest)

    assert changed(model, published) == [CONV1, *FC]
    assert manifest.initial_weights == "mine.pth"
    assert manifest.sha256[manifest.weights_file.as_posix()] == sha256(tmp_path / "mine.pth")
    assert sorted(path.name for path in Path("data/weights").iterdir()) == ["README.txt", "own.pth"]
    torch.save(model.state_dict(), manifest.weights_file)
    with pytest.raises(UserError, match=rf"{manifest.weights_file} .*dvc repro -f download"):
        initial_model(quick_params(), manifest)


@pytest.mark.parametrize("weights", ["wrong.safetensors", "no/such.pth", "data/weights/own.pth"])
def test_a_file_that_cannot_be_taken_leaves_all_as_it_was_whatever_the_fallback(download_with, weights):
    def data():
        return {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}

    download_with(weights="mine.pth")
    before = data()
    Path("wrong.safetensors").write_bytes(b"no weights")

    with pytest.raises(UserError, match=f"^{weights} [^\n]*$|/{weights} [^\n]*$"):
        download_with(weights=weights, dataset="mnist", offline_fallback=True)

    assert data() == before


def test_what_a_file_does_not_give_is_a_function_of_the_seed_alone():
    first, again, other = (initial_model(quick_params(seed=seed), FROM_RANDOM_WEIGHTS) for seed in (1, 1, 2))

    assert differences(again.state_dict(), first.state_dict()) == []
    assert not torch.equal(other.fc.weight, first.fc.weight)


def test_a_model_survives_its_file_which_has_the_same_bytes_each_time(tmp_path):
    model, file = build_model("resnet18", 10).eval(), tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=f"{file}: .*dvc repro train"):
        load_model(file)
    content = encode_model(model, model_metadata("resnet18", DIGITS, MNIST_INPUT))
    file.write_bytes(content)

    again, metadata = load_model(file)

    assert differences(again.state_dict(), model.state_dict()) == []
    assert not again.training
    assert metadata["image_size"] == 28
    assert changed(model, read_weights(file, "resnet18")) == []
    assert {encode_model(model, model_metadata("resnet18", DIGITS, MNIST_INPUT)) for _ in range(5)} == {content}
