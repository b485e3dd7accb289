"""The weights that training starts from: whose they may be, how they are checked, and that they are what they say."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.project import quick_params, slow
from helpers.published import made_up
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision.models import resnet18

from src.download import stage as download
from src.mnist.dataset import load_manifest
from src.pipeline.process import UserError
from src.pipeline.files import sha256
from src.pipeline.params import load_params
from src.resnet.model_file import encode_model, model_metadata
from src.resnet.network import build_model
from src.weights.state_dict import load_weights, read_weights
from src.train.stage import initial_model

IMAGENET_MEAN, IMAGENET_STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return made_up()


def without_counters(state: dict) -> dict:
    return {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}


def without_fc(state: dict) -> dict:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def grey(state: dict) -> dict:
    return state | {"conv1.weight": state["conv1.weight"].sum(1, keepdim=True)}


def ten_classes(state: dict) -> dict:
    return state | {"fc.weight": state["fc.weight"][:10], "fc.bias": state["fc.bias"][:10]}


def in_halves(state: dict) -> dict:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def changed(model: nn.Module, state: dict) -> list[str]:
    """The names of a model's tensors that are not those of a file."""
    ours = without_counters(model.state_dict())
    return [name for name in ours if name not in state or not torch.equal(ours[name], state[name].float())]


# What a file may hold


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("shape", [dict, without_counters, without_fc, grey, ten_classes, in_halves])
def test_the_weights_of_any_resnet18_are_loaded(tmp_path, published, suffix, shape):
    state, file = shape(published), tmp_path / f"weights{suffix}"
    {".pth": torch.save, ".safetensors": lambda s, f: save_file({k: v.contiguous() for k, v in s.items()}, f)}[suffix](
        state, file
    )
    model = build_model(10)

    load_weights(model, read_weights(file), "sum")

    expected = [] if shape is grey else ["conv1.weight"]
    assert changed(model, state) == expected + ([] if shape is ten_classes else ["fc.weight", "fc.bias"])


def test_an_earlier_model_of_this_project_is_taken_whole(tmp_path):
    earlier, model = build_model(10), build_model(10)
    (tmp_path / "model.safetensors").write_bytes(encode_model(earlier, model_metadata(28)))

    load_weights(model, read_weights(tmp_path / "model.safetensors"), "sum")

    assert changed(model, earlier.state_dict()) == []


@pytest.mark.parametrize(("conv1_init", "factor"), [("sum", 1), ("mean", 1 / 3)])
def test_conv1_sees_a_grey_image_as_the_rgb_network_does(published, conv1_init, factor):
    rgb, model = nn.Conv2d(3, 64, 7, 2, 3, bias=False).double(), build_model(10)
    rgb.weight = nn.Parameter(published["conv1.weight"].double())
    image = torch.randn(2, 1, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    in_float64 = {name: tensor.double() for name, tensor in published.items()}

    load_weights(model.double(), in_float64, conv1_init)

    expected = rgb(image.expand(-1, 3, -1, -1)) * factor
    torch.testing.assert_close(model.conv1(image), expected, rtol=1e-9, atol=1e-9)


def test_a_new_conv1_stays_as_it_was(published):
    model = build_model(10)
    before = model.conv1.weight.clone()

    load_weights(model, published, "new")

    assert torch.equal(model.conv1.weight, before)


# Wrong files


class Trap:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return (open, ("sprung", "w"))


def with_nan(state: dict) -> dict:
    spoilt = state["layer3.0.conv1.weight"].clone()
    spoilt[0, 0, 0, 0] = float("nan")
    return state | {"layer3.0.conv1.weight": spoilt}


def renamed(state: dict) -> dict:
    return {f"module.{name}": tensor for name, tensor in state.items()}


WRONG = {  # a file's name, what is written into it, and what the line says
    "another network": ("w.pth", lambda file, state: torch.save({"weight": torch.zeros(1)}, file), "is missing"),
    "names of a wrapper": ("w.pth", lambda file, state: torch.save(renamed(state), file), "bn1.bias is missing"),
    "one tensor too many": (
        "w.pth", lambda file, state: torch.save(state | {"se.weight": torch.zeros(1)}, file), "se.weight is none of",
    ),
    "half of fc": (
        "w.pth", lambda file, state: torch.save(without_fc(state) | {"fc.bias": state["fc.bias"]}, file),
        "fc.weight is missing",
    ),
    "other shapes": (
        "w.pth", lambda file, state: torch.save(state | {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, file),
        r"layer1.0.conv1.weight has the shape \(64, 64, 1, 1\), not \(64, 64, 3, 3\)",
    ),
    "two channels": (
        "w.pth", lambda file, state: torch.save(state | {"conv1.weight": torch.zeros(64, 2, 7, 7)}, file),
        r"conv1.weight has the shape \(64, 2, 7, 7\)",
    ),
    "NaN": ("w.pth", lambda file, state: torch.save(with_nan(state), file), "layer3.0.conv1.weight holds what is no"),
    "integers": (
        "w.pth", lambda file, state: torch.save(state | {"bn1.bias": torch.zeros(64, dtype=torch.int64)}, file),
        "bn1.bias holds what is no finite number",
    ),
    "a whole model": ("w.pth", lambda file, state: torch.save(resnet18(), file), ""),
    "a pickle that executes": (
        "w.pth", lambda file, state: file.write_bytes(pickle.dumps({"conv1.weight": Trap()}, protocol=2)), "",
    ),
    "a list": ("w.pth", lambda file, state: torch.save([torch.zeros(1)], file), "no mapping of names to tensors"),
    "empty": ("w.pth", lambda file, state: file.write_bytes(b""), ""),
    "empty safetensors": ("w.safetensors", lambda file, state: file.write_bytes(b""), ""),
    "text": ("w.safetensors", lambda file, state: file.write_text("no weights"), ""),
    "a .pth under another name": ("w.safetensors", lambda file, state: torch.save(state, file), ""),
}  # fmt: skip


def cut_short(file: Path, state: dict) -> None:
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[:1_000_000])


WRONG["cut short"] = ("w.pth", cut_short, "")


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line(tmp_path, monkeypatch, published, case):
    monkeypatch.chdir(tmp_path)
    name, write, reason = WRONG[case]
    write(Path(name), published)

    with pytest.raises(UserError, match=f"^{name} holds no ResNet-18 weights: .*{reason}") as error:
        read_weights(Path(name))

    assert "\n" not in str(error.value)
    assert not Path("sprung").exists()


def test_a_wrong_file_leaves_all_as_it_was(in_project):
    download.main()
    before = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    Path("mine.safetensors").write_bytes(b"no weights")
    in_project.set_params(weights="mine.safetensors", dataset="mnist")

    with pytest.raises(SystemExit, match=r"error: mine\.safetensors holds no ResNet-18 weights"):
        download.main()

    assert {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()} == before


def test_one_of_the_workflows_own_copies_is_refused_and_stays(in_project, published):
    torch.save(published, "mine.pth")
    in_project.set_params(weights="mine.pth")
    download.main()
    in_project.set_params(weights="data/weights/own.pth")

    with pytest.raises(SystemExit, match=r"data/weights/own\.pth lies in data/weights, .* move it elsewhere"):
        download.main()

    assert Path("data/weights/own.pth").read_bytes() == Path("mine.pth").read_bytes()


def test_a_file_that_is_not_there_is_one_line_whatever_the_fallback(in_project):
    in_project.set_params(weights="no/such.pth", offline_fallback=True)

    with pytest.raises(SystemExit, match=r"^error: no/such\.pth holds no ResNet-18 weights: .*No such file") as exit_:
        download.main()

    assert "\n" not in str(exit_.value)


# From the file to the training


def test_the_manifest_names_the_users_file_and_training_starts_from_it(in_project, published):
    in_project.set_params(weights="mine.pth")
    torch.save(published, "mine.pth")

    download.main()
    model = initial_model(quick_params(), load_manifest())

    manifest = load_manifest()
    assert manifest.initial_weights == "mine.pth"
    assert manifest.sha256[manifest.weights_file.as_posix()] == sha256(Path("mine.pth"))
    assert changed(model, published) == ["conv1.weight", "fc.weight", "fc.bias"]


def test_the_weights_of_an_earlier_run_are_removed_where_this_one_has_others(in_project, published):
    torch.save(published, "mine.pth")
    save_file(published, "other.safetensors")
    for name in ("mine.pth", "other.safetensors"):
        in_project.set_params(weights=name)
        download.main()

    assert sorted(path.name for path in Path("data/weights").iterdir()) == ["README.txt", "own.safetensors"]
    assert Path("mine.pth").exists()


def test_a_path_starts_at_the_project_that_an_experiment_comes_from(
    in_project, published, monkeypatch, tmp_path_factory
):
    project = tmp_path_factory.mktemp("project")
    torch.save(published, project / "mine.pth")
    monkeypatch.setenv("DVC_ROOT", str(project))
    in_project.set_params(weights="mine.pth")

    download.main()

    assert load_manifest().initial_weights == "mine.pth"


@pytest.mark.slow
def test_a_temporary_experiment_finds_the_users_file(trained, published):
    torch.save(published, trained.path / "mine.pth")

    trained.run("dvc", "exp", "run", "--temp", "-n", "mine", "-S", "weights=mine.pth")

    trained.run("dvc", "exp", "apply", "mine")
    assert json.loads(trained.read("metrics/train/metrics.json"))["initial_weights"] == "mine.pth"
    assert "from mine.pth weights" in trained.read("metrics/report.md")


@pytest.mark.parametrize("now", ["", "weights: random\n"])
def test_an_old_parameters_name_is_told_what_it_is_now(in_project, now):
    text = in_project.read("params.yaml").replace("weights: random\n", f"pretrained: true\n{now}")
    Path("params.yaml").write_text(text)

    with pytest.raises(UserError, match="'pretrained' is now called weights, and is imagenet, random, or a file"):
        load_params()


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
