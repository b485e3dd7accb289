"""The batches of an epoch: which images, in which order, warped how."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from src.mnist.images import SIDE, Images
from src.mnist.inputs import to_input
from src.pipeline.params import Params
from src.train.process_group import ProcessGroup
from src.train.seeding import make_generator


class Batch(NamedTuple):
    """One process's shard of a batch."""

    inputs: torch.Tensor  # (N, 1, S, S) float32, channels_last
    labels: torch.Tensor  # (N,) int64
    size: int  # images in the batch of all processes


class Batches:
    """The batches of all epochs. Their number in one epoch is ``len``, that of its images ``images``.

    The order of an epoch's images is a function of (seed, epoch), the warp of a batch one of (seed, epoch, step), and
    nothing else is random. So a run that stops anywhere can go on with the same batches.

    The sizes of the batches differ by one image at most, so that none is too small for batch normalisation.
    """

    def __init__(self, data: Images, params: Params, group: ProcessGroup) -> None:
        self._data, self._params, self._group = data, params, group
        self.images = len(data.labels)

    def __len__(self) -> int:
        return math.ceil(self.images / self._params.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0, from its ``first_step`` on."""
        order = torch.randperm(self.images, generator=make_generator(self._params.seed, "order", epoch))
        batches = order.tensor_split(len(self))
        for step, batch in enumerate(batches[first_step:], first_step):
            yield self._make(batch, epoch, step)

    def _make(self, batch: torch.Tensor, epoch: int, step: int) -> Batch:
        device = self._data.images.device
        indices = self._group.shard(batch).to(device, non_blocking=True)
        theta = None
        if self._params.augment:
            theta = random_affine(len(batch), self._params, make_generator(self._params.seed, "augment", epoch, step))
            theta = self._group.shard(theta).to(device, non_blocking=True)
        # index_select copies whole images; indexing by a tensor took ten times as long
        inputs = to_input(self._data.images.index_select(0, indices), self._params.image_size, theta)
        labels = self._data.labels.index_select(0, indices)
        return Batch(inputs.contiguous(memory_format=torch.channels_last), labels, len(batch))


def random_affine(count: int, params: Params, generator: torch.Generator) -> torch.Tensor:
    """Draw a rotation, a shift and a scaling for each of ``count`` images, each uniform within its limit either way.

    Returns:
        (N, 2, 3) float32 on the CPU, as ``affine_grid`` takes it: from output to input coordinates in [-1, 1].
    """
    angle, shift_x, shift_y, scaling = (torch.rand(4, count, generator=generator) * 2 - 1).unbind()
    angle = angle * math.radians(params.max_rotation)
    scale = 1 / (1 + scaling * params.max_scaling)
    to_unit = 2 * params.max_shift / SIDE
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, -sin, shift_x * to_unit], 1), torch.stack([sin, cos, shift_y * to_unit], 1)]
    return torch.stack(rows, 1)
