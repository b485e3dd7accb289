"""The tutorial's recipe can be run by ``-S`` overrides alone: the documented command has its settings."""

import re

import numpy as np
import torch
import yaml
from helpers.project import ROOT, quick_params
from helpers.training import MNIST_INPUT, write_data
from PIL import Image
from torchvision import transforms

from src.images.dataset import Images
from src.resnet.model_file import load_model
from src.train.batches import Batches, ImagesOnDevice
from src.train.processes import ProcessGroup

GREY_LEVEL = 1 / 255 / 0.3081  # of a normalised image


def overrides() -> dict[str, object]:
    """The ``-S`` overrides of the documented command."""
    page = (ROOT / "docs/parameters.md").read_text()
    (command,) = re.findall(r"dvc exp run -n [\w-]*recipe ((?:.|\\\n)*?)\n```", page)
    return {key: yaml.safe_load(value) for key, value in re.findall(r"-S (\w+)=(\S+)", command)}


def test_the_overrides_are_the_tutorials_settings():
    assert overrides() == {
        "image_size": 224,
        "batch_size": 16,
        "lr": 0.001,
        "schedule": "constant",
        "augment": False,
        "ema_decay": 0,
        "validation_size": 0,
        "precision": "fp32",
        "weights": "torchvision",
        "conv1_init": "new",
    }


def test_the_batches_are_sixteen_of_the_tutorials_inputs_within_one_grey_level(digits):
    images = digits[0][::125]
    transform = transforms.Compose(
        [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    theirs = torch.stack([transform(Image.fromarray(image)) for image in images])
    data = Images(images, np.arange(len(images)))  # labels that undo the shuffling

    params, form = quick_params(**overrides()), MNIST_INPUT._replace(image_size=224)
    batches = list(Batches(ImagesOnDevice(data, torch.device("cpu")), params, form, ProcessGroup()).epoch(0))
    ours = torch.cat([batch.inputs for batch in batches])
    order = torch.cat([batch.labels for batch in batches])

    assert [batch.size for batch in batches] == [14, 13, 13]
    assert (ours[order.argsort()] - theirs).abs().max() <= GREY_LEVEL * 1.001


def test_the_recipe_runs_for_a_few_steps(project, digits):
    write_data(project.path, digits, training=17, test=2)
    project.set_params(**overrides() | {"epochs": 1})

    done = project.run("python", "-m", "src.train")

    _, metadata = load_model(project.path / "models/model.safetensors")
    assert "17 images, random initial weights, 1 epoch, 2 steps\n" in done.stdout
    assert metadata["image_size"] == 224
