"""The three sets of images: what is trained on, what is held out for validation, and the test set."""

import numpy as np
import torch

from src.images.dataset import Images, Manifest, load_images, load_writers
from src.pipeline.process import UserError
from src.sampling.seeding import make_generator


def load_sets(manifest: Manifest, validation_size: float) -> dict[str, Images]:
    """Load the sets ``train``, ``validation`` (where anything is held out) and ``test``."""
    writers = load_writers(manifest, "train")
    train, validation = split_validation(load_images(manifest, "train"), validation_size, writers)
    sets = {"train": train, "validation": validation, "test": load_images(manifest, "test")}
    return {name: data for name, data in sets.items() if data is not None}


def split_validation(
    data: Images, validation_size: float, writers: np.ndarray | None = None
) -> tuple[Images, Images | None]:
    """Part the training set into what is trained on and a validation set.

    The split depends on the data and the size alone, so that runs with different seeds can be compared.

    Args:
        data: the training set.
        validation_size: the share held out, 0 for none.
        writers: (N,), who wrote each image. Whole writers are held out: MNIST's test set is by other writers too, and
            hands that were trained on would flatter. Without it, the same share of each class is held out.

    Returns:
        What is trained on, and the validation set or None.

    Raises:
        UserError: the share is too small to hold an image of each class.
    """
    if validation_size == 0:
        return data, None
    count = round(validation_size * len(data.labels))
    held_out = hold_out_by_class(data.labels, count) if writers is None else _hold_out_writers(writers, count)
    parts = map(np.flatnonzero, (~held_out, held_out))
    train, validation = (Images(data.source, data.labels[part], part) for part in parts)
    if not np.array_equal(np.unique(train.labels), np.unique(validation.labels)):
        raise UserError(f"validation_size = {validation_size} is too small for {len(data.labels)} images")
    return train, validation


def hold_out_by_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose ``count`` of the images, the same share of each class: (N,) bool."""
    shuffled = torch.randperm(len(labels), generator=make_generator(0, "validation")).numpy()
    by_class = shuffled[labels[shuffled].argsort(kind="stable")]
    shares = np.arange(len(labels) + 1) * count // len(labels)  # systematic sampling: one in every so many
    held_out = np.zeros(len(labels), bool)
    held_out[by_class] = np.diff(shares) > 0
    return held_out


def _hold_out_writers(writers: np.ndarray, count: int) -> np.ndarray:
    """Choose whole writers, at random but for the last two, who bring their images close to ``count``: (N,) bool."""
    names, sizes = np.unique(writers, return_counts=True)
    order = torch.randperm(len(names), generator=make_generator(0, "validation")).numpy()
    fitting = np.searchsorted(sizes[order].cumsum(), count, side="right")
    chosen, others = np.split(order, [max(0, fitting - 1)])
    sums = np.add.outer(sizes[others], sizes[others])
    np.fill_diagonal(sums, sizes[others])  # of one writer alone
    last = np.unravel_index(abs(sums - (count - sizes[chosen].sum())).argmin(), sums.shape)
    return np.isin(writers, names[[*chosen, *others[[*last]]]])
