"""The batches of an epoch."""

import math
from collections.abc import Iterator

import torch

from src.mnist.images import SIDE, Images
from src.mnist.inputs import to_input
from src.pipeline.params import Params
from src.train.distributed import Processes
from src.train.seeding import generator


def steps_per_epoch(images: int, batch_size: int) -> int:
    return math.ceil(images / batch_size)


def training_batches(
    data: Images, params: Params, epoch: int, first: int = 0, processes: Processes | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """One epoch's batches: each image once, in an order and with a warp that are functions of (seed, epoch, step).

    The batches' sizes differ by one image at most, so that none is too small for batch normalisation.

    Args:
        data: the whole training set.
        params: of the run.
        epoch: counted from 0.
        first: the step of the epoch to begin with.
        processes: that share each batch; None for this one alone.

    Yields:
        inputs (N, 1, S, S) float32 in channels_last and labels (N,) int64, this process's share, and the number of
        images in the whole batch.
    """
    processes = processes or Processes()
    count = len(data.labels)
    order = torch.randperm(count, generator=generator(params.seed, "order", epoch))
    batches = order.tensor_split(steps_per_epoch(count, params.batch_size))
    for step, batch in enumerate(batches[first:], first):
        indices = processes.share(batch).to(data.images.device, non_blocking=True)
        theta = None
        if params.augment:
            theta = random_affine(
                len(batch),
                side=SIDE,
                max_rotation=params.max_rotation,
                max_shift=params.max_shift,
                max_scaling=params.max_scaling,
                generator=generator(params.seed, "augment", epoch, step),
            )
            theta = processes.share(theta).to(data.images.device, non_blocking=True)
        # index_select copies whole images; indexing by a tensor took ten times as long
        inputs = to_input(data.images.index_select(0, indices), params.image_size, theta)
        labels = data.labels.index_select(0, indices).long()
        yield inputs.contiguous(memory_format=torch.channels_last), labels, len(batch)


def random_affine(
    count: int, *, side: int, max_rotation: float, max_shift: float, max_scaling: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw a rotation, a shift and a scaling for each image, each uniform within its limit either way.

    Args:
        count: N.
        side: of the images, in pixels.
        max_rotation: degrees.
        max_shift: pixels.
        max_scaling: share; 0.1 gives factors from 0.9 to 1.1.
        generator: of the CPU.

    Returns:
        (N, 2, 3) float32 on the CPU, as ``affine_grid`` takes it: from output to input coordinates in [-1, 1].
    """
    angle, shift_x, shift_y, scaling = (torch.rand(4, count, generator=generator) * 2 - 1).unbind()
    angle = angle * math.radians(max_rotation)
    scale = 1 / (1 + scaling * max_scaling)
    to_unit = 2 * max_shift / side
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, -sin, shift_x * to_unit], 1), torch.stack([sin, cos, shift_y * to_unit], 1)]
    return torch.stack(rows, 1)
