"""The three sets of images: what is trained on, what is held out for validation, and the test set."""

import numpy as np
from sklearn.model_selection import train_test_split

from src.mnist.images import Images, load_test_images, load_training_images
from src.mnist.manifest import Manifest
from src.pipeline.errors import UserError


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
    indices = np.arange(len(data.labels))
    try:
        train, validation = train_test_split(
            indices, test_size=validation_size, stratify=data.labels.numpy(), random_state=0
        )
    except ValueError as error:
        raise UserError(f"validation_size = {validation_size} is too small for {len(indices)} images") from error
    train, validation = np.sort(train), np.sort(validation)
    return Images(data.images[train], data.labels[train]), Images(data.images[validation], data.labels[validation])
