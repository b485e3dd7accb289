"""The weights that training starts from, whose they may be and how they are checked; and the trained model's file."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.project import quick_params, slow
from helpers.training import FROM_RANDOM_WEIGHTS, differences
from safetensors.torch import save, save_file
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision.models import resnet18

from src.download.stage import main as download
from src.mnist.dataset import load_manifest
from src.pipeline.files import sha256
from src.pipeline.process import UserError
from src.resnet.model_file import encode_model, load_model, model_metadata
from src.resnet.network import build_model
from src.train.stage import initial_model
from src.weights.initial_weights import load_weights, read_weights

IMAGENET_MEAN, IMAGENET_STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


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


def with_nan(state: dict) -> dict:
    spoilt = state["layer3.0.conv1.weight"].clone()
    spoilt[0, 0, 0, 0] = float("nan")
    return state | {"layer3.0.conv1.weight": spoilt}


WRONG_STATES = {  # what is in the file, and what the line names
    "another network": (lambda state: {"weight": torch.zeros(1)}, "bn1.bias"),
    "one tensor too many": (lambda state: state | {"se.weight": torch.zeros(1)}, "se.weight"),
    "half of fc": (lambda state: without(state, "fc.weight"), "fc.weight"),
    "other shapes": (
        lambda state: state | {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)},
        r"layer1.0.conv1.weight .*\(64, 64, 1, 1\), not \(64, 64, 3, 3\)",
    ),
    "two channels": (lambda state: state | {"conv1.weight": torch.zeros(64, 2, 7, 7)}, r"conv1.weight .*\(64, 2, 7"),
    "NaN": (with_nan, "layer3.0.conv1.weight .*NaN"),
    "integers": (lambda state: state | {"bn1.bias": torch.zeros(64, dtype=torch.int64)}, "bn1.bias .*integers"),
    "a whole model": (lambda state: resnet18(), ""),
    "a list": (lambda state: [torch.zeros(1)], "not a state dict"),
}
WRONG_BYTES = {  # a file's name, and what of a sound .pth file is in it
    "empty": ("w.pth", lambda sound: b""),
    "a pickle that executes": ("w.pth", lambda sound: pickle.dumps({"conv1.weight": Trap()}, protocol=2)),
    "cut short": ("w.pth", lambda sound: sound[:1_000_000]),
    "empty safetensors": ("w.safetensors", lambda sound: b""),
    "text": ("w.safetensors", lambda sound: b"no weights"),
    "a .pth under another name": ("w.safetensors", lambda sound: sound),
}


@pytest.mark.parametrize("case", [*WRONG_STATES, *WRONG_BYTES])
def test_a_wrong_file_is_one_line_that_names_it(tmp_path, monkeypatch, published, case):
    monkeypatch.chdir(tmp_path)
    name, reason = "w.pth", ""
    if case in WRONG_STATES:
        wrong, reason = WRONG_STATES[case]
        write(Path(name), wrong(published))
    else:
        name, part = WRONG_BYTES[case]
        write(Path("sound"), published)
        Path(name).write_bytes(part(Path("sound").read_bytes()))

    with pytest.raises(UserError, match=f"^{name} .*{reason}") as error:
        read_weights(Path(name))

    assert "\n" not in str(error.value)
    assert not Path("sprung").exists()


# From the user's file to the training


@pytest.fixture
def downloaded(in_project, published):
    """A fresh clone where ``download`` has run with the user's own ``mine.pth``. It is the working folder."""
    write(Path("mine.pth"), published)
    in_project.set_params(weights="mine.pth")
    download()
    return in_project


def test_the_manifest_names_the_users_file_and_training_starts_from_it(downloaded, published):
    manifest = load_manifest()

    model = initial_model(quick_params(), manifest)

    assert manifest.initial_weights == "mine.pth"
    assert manifest.sha256[manifest.weights_file.as_posix()] == sha256(Path("mine.pth"))
    assert changed(model, published) == CONV1 + FC


def test_weights_that_are_not_the_downloaded_ones_are_refused(downloaded):
    manifest = load_manifest()
    write(manifest.weights_file, build_model(10).state_dict())

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
def test_a_file_that_cannot_be_taken_leaves_all_as_it_was_whatever_the_fallback(downloaded, weights, named):
    def data():
        return {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}

    before = data()
    Path("wrong.safetensors").write_bytes(b"no weights")
    downloaded.set_params(weights=weights, dataset="mnist", offline_fallback=True)

    with pytest.raises(UserError, match=named) as error:
        download()

    assert "\n" not in str(error.value)
    assert data() == before


def test_the_weights_of_an_earlier_run_are_removed_where_this_one_has_others(downloaded, published):
    write(Path("other.safetensors"), published)
    downloaded.set_params(weights="other.safetensors")
    download()

    assert sorted(path.name for path in Path("data/weights").iterdir()) == ["README.txt", "own.safetensors"]
    assert Path("mine.pth").exists()


def test_a_path_starts_at_the_project_that_an_experiment_comes_from(in_project, published, monkeypatch, tmp_path):
    (tmp_path / "the project").mkdir()
    write(tmp_path / "the project/mine.pth", published)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "the project"))
    in_project.set_params(weights="mine.pth")

    download()

    assert load_manifest().initial_weights == "mine.pth"


@pytest.mark.slow
def test_a_temporary_experiment_finds_the_users_file(trained, published):
    write(trained.path / "mine.pth", published)

    trained.run("dvc", "exp", "run", "--temp", "-n", "mine", "-S", "weights=mine.pth")

    trained.run("dvc", "exp", "apply", "mine")
    assert json.loads(trained.read("metrics/train/metrics.json"))["initial_weights"] == "mine.pth"


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


# The network is the ImageNet one: on natural photographs its batch normalisations see what they saw in its training


@pytest.fixture(scope="module")
def imagenet_trained() -> nn.Module:
    """The stand-in's network as training starts it, but for three channels at `conv1`."""
    file = Path(os.environ.get("IMAGENET_RESNET18") or "no file")
    if not file.is_file():
        pytest.skip("needs a ResNet-18 that was trained on ImageNet: name its file in IMAGENET_RESNET18")
    state = read_weights(file)
    model = build_model(10)
    load_weights(model, state, "sum")
    model.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    model.conv1.weight = nn.Parameter(state["conv1.weight"])
    return model.eval()


@pytest.fixture(scope="module")
def photographs() -> torch.Tensor:
    """Crops of scikit-learn's two photographs: (N, 3, 224, 224), normalised as ImageNet's."""
    crops, chance = [], torch.Generator().manual_seed(0)
    for pixels in load_sample_images().images:
        photo = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float().div(255)
        for side in (224, 320, 427):
            for _ in range(4):
                y, x = (int(torch.randint(n - side + 1, (1,), generator=chance)) for n in photo.shape[1:])
                crop = photo[None, :, y : y + side, x : x + side]
                crops.append(F.interpolate(crop, size=224, mode="bilinear", antialias=True))
    return (torch.cat(crops) - IMAGENET_MEAN[:, None, None]) / IMAGENET_STD[:, None, None]


def divergences(model: nn.Module, images: torch.Tensor) -> list[float]:
    """For each batch normalisation the divergence of its inputs from what it stores, the mean over the channels.

    Both are taken for normal distributions: Kullback and Leibler's divergence of the one from the other, in nats.
    """
    found = []

    def compare(layer: nn.BatchNorm2d, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
        ratio, shift = variance / layer.running_var, (mean - layer.running_mean) ** 2 / layer.running_var
        found.append(((ratio + shift - 1 - ratio.log()) / 2).mean().item())

    hooks = [m.register_forward_hook(compare) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


def test_on_photographs_the_statistics_are_those_that_the_network_stores(imagenet_trained, photographs):
    found = divergences(imagenet_trained, photographs)

    assert len(found) == 20
    assert max(found[:9]) < 0.06  # the first two stages, where two photographs are enough
    assert max(found) < 0.3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x[:, [1, 0, 2]],
        slow(lambda x: x / 2),
        slow(lambda x: x[:, [0, 2, 1]]),
        slow(lambda x: x * 255),
        slow(lambda x: x * 1.5),
        slow(lambda x: x + (IMAGENET_MEAN / IMAGENET_STD)[:, None, None]),
    ],
    ids=["red and green swapped", "half", "green and blue swapped", "0 to 255", "half as much again", "mean left in"],
)
def test_with_channels_swapped_or_the_scale_wrong_they_are_not(imagenet_trained, photographs, spoil):
    """Red and blue swapped can't be told on two photographs: 0.280 against 0.279, summed over the first two stages."""
    right, found = divergences(imagenet_trained, photographs), divergences(imagenet_trained, spoil(photographs))

    assert max(found[:9]) > 0.06
    assert sum(found[:9]) > 1.5 * sum(right[:9])
