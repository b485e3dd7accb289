"""The seed recipe stays runnable by ``-S`` overrides alone: the README's command yields the tutorial's own settings."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from torch import nn

from src.mnist.idx import encode_idx
from src.mnist.images import MNIST_DIR, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, Images
from src.mnist.manifest import MANIFEST_FILE
from src.pipeline.files import sha256
from src.pipeline.params import Params
from src.resnet.model_file import load_model
from src.train.batches import training_batches
from src.train.training import build_optimizer, build_schedule, initial_model

ROOT = Path(__file__).resolve().parent.parent


def overrides() -> dict[str, object]:
    """The ``-S`` overrides of the README's seed recipe command."""
    (command,) = re.findall(r"dvc exp run -n seed-recipe ((?:.|\\\n)*?)\n```", (ROOT / "README.md").read_text())
    pairs = re.findall(r"-S (\w+)=(\S+)", command)
    return {key: yaml.safe_load(value) for key, value in pairs}


@pytest.fixture(scope="module")
def params() -> Params:
    return Params(**yaml.safe_load((ROOT / "params.yaml").read_text()) | overrides())


def seed_transform(size: int):
    from torchvision import transforms

    return transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )


def test_the_constants_are_the_tutorials(params):
    assert (params.image_size, params.batch_size, params.epochs, params.lr) == (224, 16, 10, 1e-3)
    assert (params.dataset, params.pretrained, params.conv1_init, params.device) == ("mnist", True, "new", "auto")
    assert (params.validation_size, params.ema_decay, params.label_smoothing) == (0, 0, 0)
    assert (params.precision, params.augment) == ("fp32", False)


def test_the_layers_are_the_tutorials(params):
    theirs = torchvision.models.resnet18()
    theirs.conv1 = nn.Conv2d(1, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)
    theirs.fc = nn.Linear(theirs.fc.in_features, 10)
    ours = initial_model(params, None)
    assert str(ours) == str(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 1, 224, 224)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_the_optimizer_is_adam_with_its_defaults_at_a_constant_rate(params):
    model = nn.Linear(3, 2)
    theirs = torch.optim.Adam(model.parameters())
    ours = build_optimizer(params, model)
    assert type(ours) is torch.optim.Adam
    assert {**ours.defaults, "fused": None} == {**theirs.defaults, "fused": None}
    schedule = build_schedule(params, ours, 100)
    for _ in range(100):
        assert ours.param_groups[0]["lr"] == 1e-3
        ours.step()
        schedule.step()


def test_the_cross_entropy_is_plain():
    defaults = inspect.signature(nn.functional.cross_entropy).parameters
    assert defaults["reduction"].default == "mean" and defaults["label_smoothing"].default == 0.0


@pytest.mark.parametrize("size", [28, 224])
def test_the_batched_transform_is_the_tutorials_within_one_grey_level(params, digits, size):
    images, _ = digits
    chosen = images[::100]
    transform = seed_transform(size)
    theirs = torch.stack([transform(Image.fromarray(image)) for image in chosen])
    data = Images(torch.from_numpy(chosen), torch.arange(len(chosen)).to(torch.uint8))
    recipe = params.model_copy(update={"image_size": size})
    batches = list(training_batches(data, recipe, epoch=0))
    ours = torch.cat([inputs for inputs, *_ in batches])
    labels = torch.cat([labels for _, labels, _ in batches])  # the images' numbers here, to undo the shuffling
    grey_level = 1 / 255 / 0.3081
    assert (ours[labels.argsort()] - theirs).abs().max() <= grey_level * 1.001


def test_each_image_is_seen_once_an_epoch_in_shuffled_batches_of_sixteen(params):
    data = Images(torch.zeros(240, 28, 28, dtype=torch.uint8), torch.arange(240).to(torch.uint8))
    small = params.model_copy(update={"image_size": 28})
    orders = []
    for epoch in range(2):
        batches = [labels for _, labels, _ in training_batches(data, small, epoch)]
        assert [len(labels) for labels in batches] == [16] * 15
        orders.append(torch.cat(batches))
        assert not torch.equal(orders[-1], torch.arange(240))
        assert torch.equal(orders[-1].sort().values, torch.arange(240))
    assert not torch.equal(*orders)


def test_the_recipe_runs_for_a_few_steps(project, digits):
    images, labels = digits
    chosen = np.arange(0, 5000, 100)  # 50 images, 5 a class
    arrays = {
        TRAIN_IMAGES: images[chosen], TRAIN_LABELS: labels[chosen],
        TEST_IMAGES: images[chosen + 1][:20], TEST_LABELS: labels[chosen + 1][:20],
    }  # fmt: skip
    (project.path / MNIST_DIR).mkdir(parents=True)
    for name, array in arrays.items():
        (project.path / MNIST_DIR / name).write_bytes(encode_idx(array))
    hashes = {(MNIST_DIR / name).as_posix(): sha256(project.path / MNIST_DIR / name) for name in arrays}
    manifest = {"dataset": "sample", "training_images": 50, "test_images": 20, "initial_weights": "random"}
    (project.path / MANIFEST_FILE).write_text(json.dumps(manifest | {"sha256": hashes}))
    project.set_params(**overrides() | {"epochs": 1})
    done = project.run("python", "-m", "src.train")
    assert "50 images, random initial weights, 1 epochs of 4 steps on" in done.stdout
    metrics = json.loads(project.read("metrics/train/metrics.json"))
    assert "validation" not in metrics and metrics["training_images"] == 50
    assert load_model(project.path / "models/model.safetensors")[1]["image_size"] == 224
