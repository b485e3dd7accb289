"""The network, the weights that training starts from, and the model's file."""

import json
import pickle

import pytest
import torch
from helpers.project import quick_params
from helpers.training import FROM_RANDOM_WEIGHTS, differences
from torchvision.models import resnet18

from src.pipeline.errors import UserError
from src.pipeline.files import sha256
from src.resnet.model_file import encode_model, load_model, model_metadata
from src.resnet.network import build_model, load_imagenet_weights
from src.train.training import initial_model


@pytest.fixture(scope="module")
def imagenet_like(tmp_path_factory):
    """A stand-in for torchvision's weights file, and the model in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = resnet18().eval()
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(model.state_dict(), path)
    return path, model


@pytest.fixture(scope="module")
def encoded():
    """A model, and what its file holds."""
    model = build_model(10).eval()
    return model, encode_model(model, model_metadata(28))


def test_the_network_answers_one_channel_with_as_many_classes_as_asked_for():
    logits = build_model(7).eval()(torch.zeros(2, 1, 28, 28))

    assert logits.shape == (2, 7)


def test_summed_conv1_sees_a_grey_image_as_the_rgb_model_does(imagenet_like):
    path, rgb = imagenet_like
    model = build_model(10)
    grey = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))

    load_imagenet_weights(model, path, "summed")

    # The sum over the three colours is in fp32: 147 weights below 0.2, each rounded to 1e-8.
    expected = rgb.conv1(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(model.conv1(grey), expected, rtol=0, atol=1e-5)


def test_all_weights_behind_conv1_are_the_files(imagenet_like):
    path, rgb = imagenet_like
    model = build_model(10)

    load_imagenet_weights(model, path, "summed")

    theirs, ours = rgb.state_dict(), model.state_dict()
    changed = [name for name in theirs if ours[name].shape != theirs[name].shape or not ours[name].equal(theirs[name])]
    assert changed == ["conv1.weight", "fc.weight", "fc.bias"]


def test_new_conv1_and_fc_stay_as_they_were(imagenet_like):
    path, _ = imagenet_like
    model = build_model(10)
    conv1, fc = model.conv1.weight.clone(), model.fc.weight.clone()

    load_imagenet_weights(model, path, "new")

    assert torch.equal(model.conv1.weight, conv1)
    assert torch.equal(model.fc.weight, fc)


def test_a_pickle_in_place_of_weights_is_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"conv1.weight": Trap()}, protocol=2))

    with pytest.raises(UserError, match="no ResNet-18 weights"):
        load_imagenet_weights(build_model(10), tmp_path / "weights.pth", "summed")

    assert not (tmp_path / "sprung").exists()


def test_a_state_dict_of_another_model_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": 0, "fc.bias": 0}, tmp_path / "weights.pth")

    with pytest.raises(UserError, match=r"weights\.pth holds no ResNet-18 weights: missing"):
        load_imagenet_weights(build_model(10), tmp_path / "weights.pth", "summed")


def test_training_starts_from_weights_that_the_seed_alone_decides():
    first = initial_model(quick_params(seed=1), FROM_RANDOM_WEIGHTS)
    torch.rand(100)  # whatever was drawn before
    again = initial_model(quick_params(seed=1), FROM_RANDOM_WEIGHTS)
    other = initial_model(quick_params(seed=2), FROM_RANDOM_WEIGHTS)

    assert differences(again.state_dict(), first.state_dict()) == []
    assert not torch.equal(other.fc.weight, first.fc.weight)


def test_starting_draws_nothing_from_pytorchs_own_generator():
    before = torch.get_rng_state()

    initial_model(quick_params(), FROM_RANDOM_WEIGHTS)

    assert torch.equal(torch.get_rng_state(), before)


def test_training_starts_from_the_downloaded_weights(imagenet_like, tmp_path, monkeypatch):
    _, rgb = imagenet_like
    monkeypatch.chdir(tmp_path)
    torch.save(rgb.state_dict(), "weights.pth")
    hashes = {"weights.pth": sha256(tmp_path / "weights.pth")}
    manifest = FROM_RANDOM_WEIGHTS.model_validate(
        FROM_RANDOM_WEIGHTS.model_dump() | {"weights_file": "weights.pth", "sha256": hashes}
    )

    model = initial_model(quick_params(), manifest)

    assert torch.equal(model.layer4[1].conv2.weight, rgb.layer4[1].conv2.weight)


def test_weights_that_are_not_the_downloaded_ones_are_refused(imagenet_like, tmp_path, monkeypatch):
    _, rgb = imagenet_like
    monkeypatch.chdir(tmp_path)
    torch.save(rgb.state_dict(), "weights.pth")
    manifest = FROM_RANDOM_WEIGHTS.model_validate(
        FROM_RANDOM_WEIGHTS.model_dump() | {"weights_file": "weights.pth", "sha256": {"weights.pth": "another hash"}}
    )

    with pytest.raises(UserError, match=r"weights\.pth is not the file that data/manifest\.json names"):
        initial_model(quick_params(), manifest)


def test_a_model_survives_its_file(tmp_path, encoded):
    model, content = encoded
    (tmp_path / "model").write_bytes(content)

    again, metadata = load_model(tmp_path / "model")

    assert differences(again.state_dict(), model.state_dict()) == []
    assert not again.training
    assert metadata == {
        "architecture": "resnet18",
        "class_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "image_size": 28,
        "mean": 0.1307,
        "std": 0.3081,
    }


def test_a_model_gives_the_same_bytes_each_time(encoded):
    model, content = encoded

    contents = {encode_model(model, model_metadata(28)) for _ in range(5)}

    assert contents == {content}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:1000],
        lambda content: b"\xff" * 8 + content,
        lambda content: content[:-4],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),  # a single bit of a weight
    ],
    ids=["empty", "cut in the header", "impossible header", "cut in the weights", "one bit"],
)
def test_a_damaged_model_is_a_clear_error(tmp_path, encoded, damage):
    _, content = encoded
    (tmp_path / "model").write_bytes(damage(content))

    with pytest.raises(UserError, match=r"model is missing or damaged: .*; run `dvc repro train`"):
        load_model(tmp_path / "model")


def test_a_missing_model_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"model is missing or damaged: .*; run `dvc repro train`"):
        load_model(tmp_path / "model")


def test_a_model_of_another_project_is_a_clear_error(tmp_path):
    from safetensors.torch import save

    content = save({"weight": torch.zeros(1)}, {"format": "pt", "mnist": json.dumps({})})
    (tmp_path / "model").write_bytes(content)

    with pytest.raises(UserError, match=r"model is missing or damaged: .*; run `dvc repro train`"):
        load_model(tmp_path / "model")
