"""The network as training starts it, and the model's file."""

import json

import pytest
import torch
from helpers.project import quick_params
from helpers.published import made_up
from helpers.training import FROM_RANDOM_WEIGHTS, differences

from src.pipeline.process import UserError
from src.pipeline.files import sha256
from src.resnet.model_file import encode_model, load_model, model_metadata
from src.resnet.network import build_model
from src.train.stage import initial_model


@pytest.fixture(scope="module")
def imagenet_like():
    """What torchvision's weights file holds, the numbers in it random."""
    return made_up()


@pytest.fixture(scope="module")
def encoded():
    """A model, and what its file holds."""
    model = build_model(10).eval()
    return model, encode_model(model, model_metadata(28))


def test_the_network_answers_one_channel_with_as_many_classes_as_asked_for():
    logits = build_model(7).eval()(torch.zeros(2, 1, 28, 28))

    assert logits.shape == (2, 7)


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
    monkeypatch.chdir(tmp_path)
    torch.save(imagenet_like, "weights.pth")
    hashes = {"weights.pth": sha256(tmp_path / "weights.pth")}
    manifest = FROM_RANDOM_WEIGHTS.model_validate(
        FROM_RANDOM_WEIGHTS.model_dump() | {"weights_file": "weights.pth", "sha256": hashes}
    )

    model = initial_model(quick_params(), manifest)

    assert torch.equal(model.layer4[1].conv2.weight, imagenet_like["layer4.1.conv2.weight"])


def test_weights_that_are_not_the_downloaded_ones_are_refused(imagenet_like, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(imagenet_like, "weights.pth")
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
