"""The weights that training starts from, whose they may be and how they are checked; and the trained model's file."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from helpers.project import QUICK, quick_params
from helpers.training import FROM_RANDOM_WEIGHTS, differences
from safetensors.torch import save, save_file
from torch import nn
from torchvision.models import resnet18

from src.download.stage import main as download
from src.mnist.dataset import load_manifest
from src.pipeline.files import sha256
from src.pipeline.process import UserError
from src.resnet.model_file import encode_model, load_model, model_metadata
from src.resnet.network import build_model
from src.train.stage import initial_model
from src.weights.state_dict import load_weights, read_weights


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state dict of ResNet-18 with three channels and 1,000 classes, as torchvision publishes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return resnet18().state_dict()


def without(state: dict, part: str) -> dict:
    return {name: tensor for name, tensor in state.items() if part not in name}


def grey(state: dict) -> dict:
    return state | {"conv1.weight": state["conv1.weight"].sum(1, keepdim=True)}


def ten_classes(state: dict) -> dict:
    return state | {"fc.weight": state["fc.weight"][:10], "fc.bias": state["fc.bias"][:10]}


def in_halves(state: dict) -> dict:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def write(file: Path, state: object) -> None:
    """Write what a file of this name would hold: safetensors, or PyTorch's own format."""
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    else:
        torch.save(state, file)


def changed(model: nn.Module, state: dict) -> list[str]:
    """The names of a model's tensors that are not those of a file."""
    ours = without(model.state_dict(), "num_batches_tracked")
    return [name for name in ours if name not in state or not torch.equal(ours[name], state[name].float())]


# What a file may hold

CONV1, FC = ["conv1.weight"], ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (dict, CONV1 + FC),
        (lambda state: without(state, "num_batches_tracked"), CONV1 + FC),
        (lambda state: without(state, "fc."), CONV1 + FC),
        (grey, FC),
        (ten_classes, CONV1),
        (in_halves, CONV1 + FC),
    ],
    ids=["whole", "no counters", "no fc", "grey", "ten classes", "half precision"],
)
def test_the_weights_of_any_resnet18_are_loaded(tmp_path, published, suffix, shape, expected):
    state, file = shape(published), tmp_path / f"weights{suffix}"
    write(file, state)
    model = build_model(10)

    load_weights(model, read_weights(file), "sum")

    assert changed(model, state) == expected


@pytest.mark.parametrize(("conv1_init", "factor"), [("sum", 1), ("mean", 1 / 3)])
def test_conv1_sees_a_grey_image_as_the_rgb_network_does(published, conv1_init, factor):
    rgb, model = nn.Conv2d(3, 64, 7, 2, 3, bias=False).double(), build_model(10)
    rgb.weight = nn.Parameter(published["conv1.weight"].double())
    image = torch.randn(2, 1, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    load_weights(model.double(), {name: tensor.double() for name, tensor in published.items()}, conv1_init)

    expected = rgb(image.expand(-1, 3, -1, -1)) * factor
    torch.testing.assert_close(model.conv1(image), expected, rtol=1e-9, atol=1e-9)


def test_a_new_conv1_stays_as_it_was(published):
    model = build_model(10)
    before = model.conv1.weight.clone()

    load_weights(model, published, "new")

    assert torch.equal(model.conv1.weight, before)
    assert changed(model, published) == CONV1 + FC


# Wrong files


class Trap:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return (open, ("sprung", "w"))


ONE_NAN = torch.tensor([float("nan"), *[0.0] * 63])
WRONG = {  # what the file w.pth holds, and what the line names
    "another network": (lambda state: {"weight": torch.zeros(1)}, "bn1.bias"),
    "one tensor too many": (lambda state: state | {"se.weight": torch.zeros(1)}, "se.weight"),
    "half of fc": (lambda state: without(state, "fc.weight"), "fc.weight"),
    "other shapes": (lambda state: state | {"bn1.bias": torch.zeros(65)}, r"bn1.bias .*\(65,\), not \(64,\)"),
    "two channels": (lambda state: state | {"conv1.weight": torch.zeros(64, 2, 7, 7)}, r"conv1.weight .*\(64, 2, 7"),
    "NaN": (lambda state: state | {"bn1.bias": ONE_NAN}, "bn1.bias .*NaN"),
    "integers": (lambda state: state | {"bn1.bias": torch.zeros(64, dtype=torch.int64)}, "bn1.bias .*integers"),
    "a whole model": (lambda state: resnet18(), ""),
    "a list": (lambda state: [torch.zeros(1)], "not a state dict"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_of_something_else_is_one_line_that_names_what_is_wrong(tmp_path, published, case):
    content, named = WRONG[case]
    write(tmp_path / "w.pth", content(published))

    with pytest.raises(UserError, match=f"w.pth .*{named}") as error:
        read_weights(tmp_path / "w.pth")

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", pickle.dumps({"conv1.weight": Trap()}, protocol=2), None],
    ids=["empty", "text", "a pickle that executes", "cut short, or a .pth by another name"],
)
def test_a_file_that_is_damaged_is_one_line_that_names_it(tmp_path, monkeypatch, published, content, suffix):
    monkeypatch.chdir(tmp_path)
    file = Path(f"w{suffix}")
    torch.save(published, file)
    file.write_bytes(file.read_bytes()[: 1_000_000 if suffix == ".pth" else None] if content is None else content)

    with pytest.raises(UserError, match=f"^{file} ") as error:
        read_weights(file)

    assert "\n" not in str(error.value)
    assert not Path("sprung").exists()


# From the user's file to the training


@pytest.fixture
def download_with(tmp_path, monkeypatch, published):
    """A function that runs ``download`` with these parameters, in a folder that has the user's own ``mine.pth``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    write(Path("mine.pth"), published)

    def run(**values):
        Path("params.yaml").write_text(json.dumps(QUICK | values))  # JSON is YAML
        download()

    return run


def test_the_manifest_names_the_users_file_and_training_starts_from_it_alone(download_with, published):
    download_with(weights="mine.pth")
    manifest = load_manifest()

    model = initial_model(quick_params(), manifest)

    assert manifest.initial_weights == "mine.pth"
    assert manifest.sha256[manifest.weights_file.as_posix()] == sha256(Path("mine.pth"))
    assert changed(model, published) == CONV1 + FC
    write(manifest.weights_file, model.state_dict())
    with pytest.raises(UserError, match=rf"{manifest.weights_file} .*dvc repro -f download"):
        initial_model(quick_params(), manifest)


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ("wrong.safetensors", "wrong.safetensors can't be read"),
        ("no/such.pth", "no/such.pth "),
        ("data/weights/own.pth", "data/weights/own.pth .*elsewhere"),  # a copy of the workflow's own
    ],
)
def test_a_file_that_cannot_be_taken_leaves_all_as_it_was_whatever_the_fallback(download_with, weights, named):
    def data():
        return {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}

    download_with(weights="mine.pth")
    before = data()
    Path("wrong.safetensors").write_bytes(b"no weights")

    with pytest.raises(UserError, match=named) as error:
        download_with(weights=weights, dataset="mnist", offline_fallback=True)

    assert "\n" not in str(error.value)
    assert data() == before


def test_the_weights_of_an_earlier_run_are_removed_where_this_one_has_others(download_with, published):
    write(Path("other.safetensors"), published)

    for weights in ("mine.pth", "other.safetensors"):
        download_with(weights=weights)

    assert sorted(path.name for path in Path("data/weights").iterdir()) == ["README.txt", "own.safetensors"]
    assert Path("mine.pth").exists()


def test_a_path_starts_at_the_project_that_an_experiment_comes_from(download_with, monkeypatch, tmp_path):
    (tmp_path / "experiment").mkdir()
    monkeypatch.chdir(tmp_path / "experiment")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    download_with(weights="mine.pth")

    assert load_manifest().initial_weights == "mine.pth"


def test_what_a_file_does_not_give_is_a_function_of_the_seed_alone():
    before = torch.get_rng_state()
    first = initial_model(quick_params(seed=1), FROM_RANDOM_WEIGHTS)
    assert torch.equal(torch.get_rng_state(), before)

    torch.rand(100)  # whatever else is drawn
    again = initial_model(quick_params(seed=1), FROM_RANDOM_WEIGHTS)
    other = initial_model(quick_params(seed=2), FROM_RANDOM_WEIGHTS)

    assert differences(again.state_dict(), first.state_dict()) == []
    assert not torch.equal(other.fc.weight, first.fc.weight)


# The trained model's file


@pytest.fixture(scope="module")
def encoded():
    """A model, and what its file holds."""
    model = build_model(10).eval()
    return model, encode_model(model, model_metadata(28))


def test_a_model_survives_its_file_and_can_be_started_from(tmp_path, encoded):
    model, content = encoded
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)

    again, metadata = load_model(file)
    started = build_model(10)
    load_weights(started, read_weights(file), "sum")

    assert differences(again.state_dict(), model.state_dict()) == []
    assert not again.training
    assert changed(started, model.state_dict()) == []
    assert metadata == {
        "architecture": "resnet18",
        "class_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "image_size": 28,
        "mean": 0.1307,
        "std": 0.3081,
    }


def test_a_model_gives_the_same_bytes_each_time(encoded):
    model, content = encoded

    assert {encode_model(model, model_metadata(28)) for _ in range(5)} == {content}


@pytest.mark.parametrize(
    "damage",
    [
        None,
        lambda content: b"",
        lambda content: content[:1000],
        lambda content: b"\xff" * 8 + content,
        lambda content: content[:-4],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: save({"weight": torch.zeros(1)}, {"format": "pt", "mnist": "{}"}),
    ],
    ids=["missing", "empty", "header cut", "impossible header", "weights cut", "one bit", "of another project"],
)
def test_a_model_that_is_missing_or_damaged_is_named_with_what_makes_one(tmp_path, encoded, damage):
    _, content = encoded
    if damage:
        (tmp_path / "model").write_bytes(damage(content))

    with pytest.raises(UserError, match=f"{tmp_path / 'model'}: .*dvc repro train"):
        load_model(tmp_path / "model")
