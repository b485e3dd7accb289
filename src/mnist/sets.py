"""The three sets of images: what is trained on, what is held out for validation, and the test set."""

import torch

from src.mnist.images import Images, load_test_images, load_training_images
from src.mnist.manifest import Manifest
from src.pipeline.errors import UserError
from src.pipeline.seeding import make_generator


def load_sets(manifest: Manifest, validation_size: float) -> dict[str, Images]:
    """Load the sets ``train``, ``validation`` (where anything is held out) and ``test``."""
    train, validation = split_validation(load_training_images(manifest), validation_size)
    sets = {"train": train, "validation": validation, "test": load_test_images(manifest)}
    return {name: data for name, data in sets.items() if data is not None}


def split_validation(data: Images, validation_size: float) -> tuple[Images, Images | None]:
    """Part the training set into what is trained on and a stratified validation set.

    The split depends on the data and the size alone, so that runs with different seeds can be compared.

    Args:
        data: the training set.
        validation_size: the share held out, 0 for none.

    Returns:
        What is trained on, and the validation set or None.

    Raises:
        UserError: the share is too small to hold an image of each class.
    """
    if validation_size == 0:
        return data, None
    total, count = len(data.labels), round(validation_size * len(data.labels))
    shuffled = torch.randperm(total, generator=make_generator(0, "validation"))
    by_class = shuffled[data.labels[shuffled].argsort(stable=True)]
    shares = torch.arange(total + 1) * count // total  # systematic sampling: every so many images one is held out
    held_out = torch.zeros(total, dtype=torch.bool)
    held_out[by_class] = shares.diff() > 0
    train, validation = (Images(data.images[part], data.labels[part]) for part in (~held_out, held_out))
    if not torch.equal(train.labels.unique(), validation.labels.unique()):
        raise UserError(f"validation_size = {validation_size} is too small for {total} images")
    return train, validation
