"""The three sets of images: what is trained on, what is held out for validation, and the test set."""

import numpy as np
import torch

from src.mnist.dataset import Images, Manifest, load_images
from src.pipeline.process import UserError
from src.sampling.seeding import make_generator


def load_sets(manifest: Manifest, validation_size: float) -> dict[str, Images]:
    """Load the sets ``train``, ``validation`` (where anything is held out) and ``test``."""
    train, validation = split_validation(load_images(manifest, "train"), validation_size)
    sets = {"train": train, "validation": validation, "test": load_images(manifest, "test")}
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
    shuffled = torch.randperm(total, generator=make_generator(0, "validation")).numpy()
    by_class = shuffled[data.labels[shuffled].argsort(kind="stable")]
    shares = np.arange(total + 1) * count // total  # systematic sampling: every so many images one is held out
    held_out = np.zeros(total, bool)
    held_out[by_class] = np.diff(shares) > 0
    train, validation = (Images(data.images[part], data.labels[part]) for part in (~held_out, held_out))
    if not np.array_equal(np.unique(train.labels), np.unique(validation.labels)):
        raise UserError(f"validation_size = {validation_size} is too small for {total} images")
    return train, validation
