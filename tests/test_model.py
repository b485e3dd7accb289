"""The model, its file, its input, and the means that are reported."""

import gzip
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from src.mnist.idx import encode_idx, read_idx
from src.mnist.images import Images, split_validation
from src.mnist.inputs import to_input
from src.pipeline.errors import UserError
from src.pipeline.files import atomic_write
from src.pipeline.machine import set_up_machine
from src.resnet.model_file import encode_model, load_model
from src.resnet.network import build_model, load_imagenet_weights
from src.train.batches import random_affine
from src.train.distributed import Processes
from src.train.metrics import Tally, evaluate
from src.train.seeding import derived_seed, generator
from src.train.training import average_decay


@pytest.fixture(scope="module")
def imagenet_like(tmp_path_factory):
    """A stand-in for torchvision's weights file, and the model in it."""
    torch.manual_seed(1)
    model = resnet18().eval()
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(model.state_dict(), path)
    return path, model


def test_summed_conv1_sees_a_grey_image_as_the_rgb_model_does(imagenet_like):
    path, rgb = imagenet_like
    model = build_model(10).eval()
    load_imagenet_weights(model, path, "summed")
    grey = torch.randn(2, 1, 64, 64)
    assert torch.allclose(model.conv1(grey), rgb.conv1(grey.expand(-1, 3, -1, -1)), atol=1e-5)
    assert torch.equal(model.layer2[0].conv1.weight, rgb.layer2[0].conv1.weight)


def test_new_conv1_stays_as_it_was(imagenet_like):
    path, _ = imagenet_like
    model = build_model(10)
    before = model.conv1.weight.clone()
    load_imagenet_weights(model, path, "new")
    assert torch.equal(model.conv1.weight, before)


def test_a_pickle_in_place_of_weights_is_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"conv1.weight": Trap()}))
    with pytest.raises(ValueError, match="no ResNet-18 weights"):
        load_imagenet_weights(build_model(10), tmp_path / "weights.pth", "summed")
    assert not (tmp_path / "sprung").exists()


def test_a_state_dict_of_another_model_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": 0, "fc.bias": 0}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="no ResNet-18 weights"):
        load_imagenet_weights(build_model(10), tmp_path / "weights.pth", "summed")


def test_a_model_survives_its_file_and_gives_the_same_bytes_again(tmp_path):
    model = build_model(10).eval()
    metadata = {"class_names": list("0123456789"), "image_size": 28, "mean": 0.1, "std": 0.2}
    content = encode_model(model, metadata)
    (tmp_path / "model").write_bytes(content)
    again, its_metadata = load_model(tmp_path / "model")
    assert its_metadata == metadata
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert len({encode_model(again, metadata) for _ in range(5)} | {content}) == 1


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:1000], lambda c: b"\xff" * 8 + c, lambda c: c[:-4]])
def test_a_damaged_model_is_a_clear_error(tmp_path, damage):
    content = encode_model(build_model(10), {"class_names": list("0123456789")})
    (tmp_path / "model").write_bytes(damage(content))
    with pytest.raises(ValueError, match="missing or damaged"):
        load_model(tmp_path / "model")


def test_loss_and_accuracy_are_true_means_over_batches_of_any_size():
    logits, labels = torch.randn(10, 10), torch.randint(0, 10, (10,))
    tally = Tally(torch.device("cpu"))
    for part in (slice(0, 7), slice(7, 10)):
        tally.add(logits[part], labels[part])
    loss, accuracy = tally.metrics(Processes())
    assert loss == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-6)
    assert accuracy == (logits.argmax(1) == labels).double().mean().item()


def test_evaluation_counts_each_image_once_where_the_set_does_not_divide(monkeypatch):
    monkeypatch.setattr("src.resnet.inference.EVALUATION_PIXELS", 28 * 28 * 3)
    data = Images(torch.randint(0, 256, (8, 28, 28), dtype=torch.uint8), torch.arange(8, dtype=torch.uint8))
    model = build_model(10)
    loss, accuracy = evaluate(model, data, 28, set_up_machine("cpu", "fp32", 0), Processes())
    with torch.no_grad():
        logits = model.eval()(to_input(data.images, 28))
    assert loss == pytest.approx(F.cross_entropy(logits, data.labels.long()).item(), rel=1e-4)
    assert accuracy * 8 == (logits.argmax(1) == data.labels).sum().item()


def test_validation_is_stratified_disjoint_and_fixed(digits):
    _, labels = digits
    numbered = torch.arange(5000).view(-1, 1, 1).expand(-1, 28, 28)
    data = Images(numbered, torch.from_numpy(labels))
    train, validation = split_validation(data, 0.1)
    assert validation.labels.bincount().tolist() == [50] * 10
    both = torch.cat([train.images, validation.images])[:, 0, 0]
    assert torch.equal(both.sort().values, torch.arange(5000))
    assert torch.equal(split_validation(data, 0.1)[1].images, validation.images)
    assert split_validation(data, 0) == (data, None)
    with pytest.raises(UserError, match=r"validation_size = 0.0001 is too small"):
        split_validation(data, 0.0001)


def affine(**limits):
    limits = {"max_rotation": 0, "max_shift": 0, "max_scaling": 0} | limits
    return random_affine(1000, side=28, generator=generator(0, "test"), **limits)


def test_no_limits_no_warp(digits):
    images = torch.from_numpy(digits[0][:1000])
    assert torch.allclose(to_input(images, 28, affine()), to_input(images, 28), atol=1e-4)


def test_warps_stay_within_their_limits_and_reach_them():
    shifts = affine(max_shift=2)[:, :, 2] * 14  # from half the side to pixels
    assert 1.9 < shifts.abs().max() <= 2
    rotations = affine(max_rotation=12)
    degrees = torch.rad2deg(torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0]))
    assert 11.9 < degrees.abs().max() <= 12.001
    assert torch.allclose(torch.linalg.det(rotations[:, :, :2]), torch.ones(1000))
    scales = 1 / torch.linalg.det(affine(max_scaling=0.1)[:, :, :2]).sqrt()
    assert 0.9 <= scales.min() < 0.901 and 1.099 < scales.max() <= 1.1001


def test_a_shift_by_whole_pixels_moves_the_picture_by_them():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 10, 12] = 255
    theta = torch.tensor([[[1, 0, 2 * 3 / 28], [0, 1, 0]]])
    moved = to_input(image, 28, theta)[0, 0]
    assert divmod(moved.argmax().item(), 28) == (10, 9)


def test_seeds_of_different_purposes_are_unrelated():
    seeds = {
        derived_seed(seed, what, epoch) for seed in range(10) for what in ("order", "augment") for epoch in range(50)
    }
    assert len(seeds) == 1000
    assert derived_seed(0, "order", 1) == derived_seed(0, "order", 1)


@pytest.mark.parametrize("shape", [(3, 28, 28), (70_000,)])
def test_idx_files_survive_the_round_trip(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "file.gz").write_bytes(encode_idx(array))
    assert np.array_equal(read_idx(tmp_path / "file.gz", shape=shape), array)


BOMB = gzip.compress(encode_idx(np.zeros(2, np.uint8))[:0] + bytes(50_000_000), mtime=0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: b"", lambda c: c[:20], lambda c: c[:-1], lambda c: c[:-5] + b"\0" + c[-4:], lambda c: b"PK" + c,
        lambda c: encode_idx(np.zeros(99, np.uint8)), lambda c: encode_idx(np.zeros((10, 10), np.uint8)),
        lambda c: BOMB,
    ],
)  # fmt: skip
def test_a_damaged_idx_file_is_a_clear_error(tmp_path, damage):
    content = encode_idx(np.arange(100, dtype=np.uint8))
    (tmp_path / "file.gz").write_bytes(damage(content))
    with pytest.raises(UserError, match=r"file\.gz.*dvc repro download"):
        read_idx(tmp_path / "file.gz", shape=(100,))


def test_an_interrupted_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(b"earlier")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "file") as file:
        file.write(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_takes_no_files_is_a_clear_error():
    with pytest.raises(UserError, match=r"can't write .*: "), atomic_write(Path("/proc/file")) as file:
        file.write(b"x")


def test_the_average_forgets_the_first_weights_soon_and_then_keeps_its_decay():
    remembered = math.prod(average_decay(0.998, step) for step in range(300))
    assert remembered < 1e-6
    assert average_decay(0.998, 100_000) == 0.998
