"""The batches of an epoch: which images, in which order, warped how. A whole batch at a time, on the device."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

from src.images.dataset import SIDE, Images
from src.pipeline.params import Params
from src.pipeline.process import UserError
from src.resnet.inference import InputFormat, normalise_and_resize, to_input, to_unit_range
from src.sampling.seeding import make_generator
from src.train.processes import ProcessGroup

ON_DEVICE = 2**32  # bytes: larger arrays of images stay where they are, and each batch is moved
SIGMA = 4.0  # in MNIST's pixels: how smooth an elastic distortion is, the value of Simard et al. 2003
PLAIN_IMAGES = 4096  # for the statistics of the averaged weights: a fortieth of an epoch of MNIST's work
BUMPS = 12  # along each side of an image, SIGMA apart, from two beyond its first pixel to two beyond its last


class Batch(NamedTuple):
    """One process's shard of a batch."""

    inputs: torch.Tensor  # (N, 1, S, S) float32, channels_last
    labels: torch.Tensor  # (N,) int64
    size: int  # images in the batch of all processes


class ImagesOnDevice:
    """Images and labels to take batches of. Their number is ``len``.

    Several sets may share one array of images, which is moved to the device once, if it is not too large for it.

    Args:
        data: the set.
        device: for the batches.
        arrays: the arrays that are there already, by the identity of NumPy's.
    """

    def __init__(self, data: Images, device: torch.device, arrays: dict[int, torch.Tensor] | None = None) -> None:
        arrays = {} if arrays is None else arrays
        if (key := id(data.source)) not in arrays:
            source = torch.from_numpy(data.source)
            arrays[key] = source if source.nbytes > ON_DEVICE else source.to(device)
        self._source, self.device = arrays[key], device
        self._labels = torch.from_numpy(data.labels).to(device)
        self._positions = None if data.positions is None else torch.from_numpy(data.positions)

    def __len__(self) -> int:
        return len(self._labels)

    def take(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the images (N, S, S) uint8 and labels (N,) int64 with these numbers (N,) int64, which are on the CPU."""
        positions = indices if self._positions is None else self._positions[indices]
        # index_select copies whole images; indexing by a tensor took ten times as long
        images = self._source.index_select(0, positions.to(self._source.device))
        return images.to(self.device), self._labels.index_select(0, indices.to(self.device))


class Batches:
    """The batches of all epochs. Their number in one epoch is ``len``, that of its images ``images``.

    The order of an epoch's images is a function of (seed, epoch), the warp of a batch one of (seed, epoch, step), and
    nothing else is random. So a run that stops anywhere can go on with the same batches.

    The sizes of the batches differ by one image at most, so that none is too small for batch normalisation.

    Args:
        data: to train on.
        params: of the run.
        form: what the network takes.
        group: the processes that share each batch.

    Raises `UserError` where a batch would have fewer images than there are processes.
    """

    def __init__(self, data: ImagesOnDevice, params: Params, form: InputFormat, group: ProcessGroup) -> None:
        self._data, self._params, self._form, self._group = data, params, form, group
        self.images = len(data)
        if self.images // len(self) < 2 * group.world_size:
            raise UserError(f"batch_size = {params.batch_size} is too small for {group.world_size} processes")

    def __len__(self) -> int:
        return math.ceil(self.images / self._params.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0, from its ``first_step`` on."""
        order = torch.randperm(self.images, generator=make_generator(self._params.seed, "order", epoch))
        batches = order.tensor_split(len(self))
        for step, batch in enumerate(batches[first_step:], first_step):
            yield self._make(batch, epoch, step)

    def plain(self) -> Iterator[torch.Tensor]:
        """Yield this process's shards of the inputs of `PLAIN_IMAGES` images, unwarped, chosen by the seed."""
        order = torch.randperm(self.images, generator=make_generator(self._params.seed, "plain"))[:PLAIN_IMAGES]
        for batch in order.tensor_split(math.ceil(len(order) / (self._form.batch_size * self._group.world_size))):
            images, _ = self._data.take(self._group.shard(batch))
            yield to_input(images, self._form).contiguous(memory_format=torch.channels_last)

    def _make(self, batch: torch.Tensor, epoch: int, step: int) -> Batch:
        images, labels = self._data.take(self._group.shard(batch))
        images = to_unit_range(images)
        if self._params.augment:
            drawn = random_warp(len(batch), self._params, make_generator(self._params.seed, "augment", epoch, step))
            images = drawn.map(lambda part: self._group.shard(part).to(self._data.device)).apply(images)
        inputs = normalise_and_resize(images, self._form)
        return Batch(inputs.contiguous(memory_format=torch.channels_last), labels, len(batch))


class Warp(NamedTuple):
    """How each image of a batch is warped: a rotation, a shift, a scaling, and an elastic distortion."""

    theta: torch.Tensor  # (N, 2, 3) float32, as `affine_grid` takes it
    bumps: torch.Tensor | None = None  # (N, 2, BUMPS, BUMPS) float32, as `displacement` takes them; None for none

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Warp":
        """Apply ``function`` to each tensor."""
        return Warp(function(self.theta), None if self.bumps is None else function(self.bumps))

    def apply(self, batch: torch.Tensor) -> torch.Tensor:
        """Warp a batch (N, 1, H, W) float32 in [0, 1]. Warped before it is resized, it costs least."""
        grid = F.affine_grid(self.theta, list(batch.shape), align_corners=False)
        if self.bumps is not None:
            grid = grid + displacement(self.bumps, batch.shape[-1]) * (2 / SIDE)
        return F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def random_warp(count: int, params: Params, generator: torch.Generator) -> Warp:
    """Draw a warp for each of ``count`` images, on the CPU."""
    theta = random_affine(count, params, generator)
    if not params.elastic:
        return Warp(theta)
    return Warp(theta, torch.randn(count, 2, BUMPS, BUMPS, generator=generator) * params.elastic)


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


def displacement(bumps: torch.Tensor, side: int = SIDE) -> torch.Tensor:
    """Add up Gaussian bumps to the smooth displacement of each pixel of an image: an elastic distortion.

    Simard et al. 2003 (Best practices for convolutional neural networks applied to visual document analysis) smooth
    white noise with a Gaussian. With heights that are white noise, a grid of bumps as far apart as they are wide gives
    a field of the same law, to a thousandth, from a fifth of the random numbers and two small matrix products.

    Args:
        bumps: (N, 2, BUMPS, BUMPS) their heights, in x and in y. Where these are independent with a standard deviation
            of d, so is the displacement of each pixel.
        side: S, of the images in pixels.

    Returns:
        (N, S, S, 2) in MNIST's pixels, x before y as `grid_sample` takes it.
    """
    pixels = (torch.arange(side, device=bumps.device, dtype=bumps.dtype) + 0.5) * (SIDE / side) - 0.5
    centres = (torch.arange(BUMPS, device=bumps.device, dtype=bumps.dtype) - 2) * SIGMA
    basis = torch.exp(-((pixels[:, None] - centres) ** 2) / (2 * SIGMA**2)) / math.pi**0.25  # whose squares add up to 1
    return (basis @ bumps @ basis.T).permute(0, 2, 3, 1)
