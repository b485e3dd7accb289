"""The batches of an epoch: which images, in which order, warped how."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from src.mnist.images import Images
from src.mnist.inputs import to_input
from src.pipeline.errors import UserError
from src.pipeline.params import Params
from src.pipeline.seeding import make_generator
from src.train.augmentation import random_warp
from src.train.process_group import ProcessGroup


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

    Raises `UserError` where a batch would have fewer images than there are processes.
    """

    def __init__(self, data: Images, params: Params, group: ProcessGroup) -> None:
        self._data, self._params, self._group = data, params, group
        self.images = len(data.labels)
        if self.images // len(self) < group.world_size:
            raise UserError(f"batch_size = {params.batch_size} is too small for {group.world_size} processes")

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
        indices = self._group.shard(batch).to(device)
        warp = None
        if self._params.augment:
            drawn = random_warp(len(batch), self._params, make_generator(self._params.seed, "augment", epoch, step))
            warp = drawn.map(lambda part: self._group.shard(part).to(device))
        # index_select copies whole images; indexing by a tensor took ten times as long
        inputs = to_input(self._data.images.index_select(0, indices), self._params.image_size, warp)
        labels = self._data.labels.index_select(0, indices)
        return Batch(inputs.contiguous(memory_format=torch.channels_last), labels, len(batch))
