"""The batches of an epoch: their seeds, their order, their warps, and what the network sees of them."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.project import quick_params

from src.pipeline.process import UserError
from src.resnet.inference import to_input, to_unit_range
from src.sampling.seeding import derive_seed, make_generator, make_numpy_generator
from src.train.batches import BUMPS, Batches, Warp, displacement, random_affine, random_warp
from src.train.processes import ProcessGroup

GREY_LEVEL = 1 / 255 / 0.3081  # the least difference of two pixels, in what the network sees
ROUNDING = 1e-6  # of float32 numbers of about 1, whose own is 6e-8


# Seeds


def test_seeds_of_different_purposes_are_all_different_and_the_same_everywhere():
    purposes = itertools.product(range(10), ("order", "augment"), range(10), range(5))

    assert len({derive_seed(*purpose) for purpose in purposes}) == 1000
    assert derive_seed(0, "order", 1) == 1_332_101_017_241_992_705


def test_a_generator_draws_the_same_for_the_same_purpose():
    for step in (1, 2):
        seed = derive_seed(0, "augment", step)
        assert make_generator(0, "augment", step).initial_seed() == seed
        assert make_numpy_generator(0, "augment", step).random() == np.random.default_rng(seed).random()


# Which images, in which order


@pytest.fixture(scope="module")
def hundred(digits):
    """A hundred digits, labelled by their numbers, so that a batch tells which images it holds."""
    return torch.from_numpy(digits[0][::50]), torch.arange(100)


def make_batches(data, rank=0, world_size=1, **values) -> Batches:
    """The batches of one of several processes, of at most 16 images."""
    return Batches(*data, quick_params(**{"batch_size": 16} | values), ProcessGroup(rank, world_size))


def numbers(batches, epoch) -> list[int]:
    """The numbers of an epoch's images, in order."""
    return torch.cat([batch.labels for batch in batches.epoch(epoch)]).tolist()


def test_an_epoch_takes_each_image_once_in_batches_whose_sizes_differ_by_one_at_most(hundred):
    batches = make_batches(hundred)

    epoch = list(batches.epoch(0))

    assert sorted(numbers(batches, 0)) == list(range(100))
    assert [len(batch.labels) for batch in epoch] == [15, 15, 14, 14, 14, 14, 14]
    assert [batch.size for batch in epoch] == [len(batch.inputs) for batch in epoch] == [15, 15, 14, 14, 14, 14, 14]
    assert (len(batches), batches.images) == (7, 100)


def test_the_order_depends_on_the_epoch_and_on_the_seed(hundred):
    first = numbers(make_batches(hundred), 0)

    assert numbers(make_batches(hundred), 0) == first
    for other in (numbers(make_batches(hundred), 1), numbers(make_batches(hundred, seed=1), 0)):
        assert other != first
        assert other != list(range(100))


def test_labels_stay_with_their_images(hundred):
    images, _ = hundred

    for batch in make_batches(hundred, augment=False).epoch(0):
        torch.testing.assert_close(batch.inputs, to_input(images[batch.labels], 28), rtol=0, atol=0)


@pytest.mark.parametrize("step", [0, 1, 6, 7])
def test_an_epoch_can_be_taken_up_at_any_step(hundred, step):
    batches = make_batches(hundred, elastic=0.5)

    whole, rest = list(batches.epoch(1)), list(batches.epoch(1, first_step=step))

    assert len(rest) == 7 - step
    for expected, batch in zip(whole[step:], rest, strict=True):
        assert torch.equal(batch.labels, expected.labels)
        assert torch.equal(batch.inputs, expected.inputs)


@pytest.mark.parametrize("count", [2, 3])
def test_the_processes_shards_are_the_one_processs_batches(hundred, count):
    alone = list(make_batches(hundred, elastic=0.5).epoch(1))

    by_rank = [list(make_batches(hundred, rank, count, elastic=0.5).epoch(1)) for rank in range(count)]

    for step, batch in enumerate(alone):
        shards = [batches[step] for batches in by_rank]
        assert torch.equal(torch.cat([shard.labels for shard in shards]), batch.labels)
        inputs = torch.cat([shard.inputs for shard in shards])
        # A warp's products are split otherwise in a smaller batch, so its sums may round otherwise.
        torch.testing.assert_close(inputs, batch.inputs, rtol=0, atol=GREY_LEVEL / 100)
        assert {shard.size for shard in shards} == {batch.size}


def test_a_batch_that_leaves_a_process_without_an_image_is_refused(hundred):
    with pytest.raises(UserError, match=r"batch_size = 3 .* 4 processes"):
        make_batches(hundred, world_size=4, batch_size=3)


def test_an_image_is_warped_anew_in_each_epoch_and_step_and_by_each_seed_and_not_without_augmentation():
    alike = torch.full((32, 28, 28), 255, dtype=torch.uint8), torch.arange(32)
    batches = make_batches(alike)

    first = next(batches.epoch(0)).inputs
    others = [
        next(batches.epoch(1)).inputs,
        next(batches.epoch(0, first_step=1)).inputs,
        next(make_batches(alike, seed=1).epoch(0)).inputs,
    ]
    unwarped = next(make_batches(alike, augment=False).epoch(0)).inputs

    assert torch.equal(first, next(batches.epoch(0)).inputs)
    assert not torch.equal(first[0], first[1])
    assert not any(torch.equal(first, other) for other in others)
    assert torch.equal(unwarped, unwarped[:1].expand_as(unwarped))


# What the network sees


def test_black_and_white_are_normalised_by_mnists_mean_and_standard_deviation():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1).expand(2, 28, 28)

    black, white = to_input(images, 28)

    assert black.unique().tolist() == pytest.approx([-0.1307 / 0.3081])
    assert white.unique().tolist() == pytest.approx([(1 - 0.1307) / 0.3081])


@pytest.mark.parametrize("image_size", [28, 32, 64])
def test_an_image_is_resized_to_the_size_that_is_asked_for_and_stays_as_it_is_itself(digits, image_size):
    images = torch.from_numpy(digits[0][:10]).clone()

    inputs = to_input(images, image_size)
    (batch,) = make_batches((images, torch.arange(10)), image_size=image_size).epoch(0)

    assert inputs.shape == batch.inputs.shape == (10, 1, image_size, image_size)
    assert inputs.dtype == batch.inputs.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    assert torch.equal(images, torch.from_numpy(digits[0][:10]))


# Warps


def draw_warps(**limits) -> torch.Tensor:
    """A thousand warps, with no limit above 0 but the ones given."""
    nothing = {"max_rotation": 0.0, "max_shift": 0.0, "max_scaling": 0.0}
    return random_affine(1000, quick_params(**nothing | limits), make_generator(0, "test"))


def degrees(warps: torch.Tensor) -> torch.Tensor:
    """The angles of warps."""
    return torch.rad2deg(torch.atan2(warps[:, 1, 0], warps[:, 0, 0]))


@pytest.mark.parametrize(
    ("limits", "measure", "lower", "upper"),
    [
        ({"max_shift": 2.0}, lambda warps: warps[:, 0, 2] * 14, -2, 2),  # from half the side to pixels
        ({"max_shift": 2.0}, lambda warps: warps[:, 1, 2] * 14, -2, 2),
        ({"max_rotation": 12.0}, degrees, -12, 12),
        ({"max_scaling": 0.1}, lambda warps: 1 / warps[:, 0, 0], 0.9, 1.1),
        ({"max_rotation": 12.0}, lambda warps: torch.linalg.det(warps[:, :, :2]), 1, 1),  # a rotation scales nothing
        ({}, lambda warps: (warps - torch.eye(2, 3)).abs().amax((1, 2)), 0, 0),
    ],
    ids=["shift in x", "shift in y", "rotation", "scaling", "area", "none"],
)
def test_a_warp_stays_within_its_limit_and_reaches_it(limits, measure, lower, upper):
    measured = measure(draw_warps(**limits))

    room = (upper - lower) / 100
    assert lower - 12 * ROUNDING <= measured.min() <= lower + room + ROUNDING
    assert upper - room - ROUNDING <= measured.max() <= upper + 12 * ROUNDING


def test_the_parts_of_a_warp_are_drawn_independently():
    warps = draw_warps(max_rotation=15.0, max_shift=2.0, max_scaling=0.15)

    scales = torch.hypot(warps[:, 0, 0], warps[:, 1, 0])
    correlations = torch.corrcoef(torch.stack([degrees(warps), scales, warps[:, 0, 2], warps[:, 1, 2]]))

    assert (correlations - torch.eye(4)).abs().max() < 0.1  # of a thousand: three standard errors


def brightest(images: torch.Tensor) -> tuple[int, int]:
    """The row and the column of an image's brightest pixel."""
    return divmod(images[0, 0].argmax().item(), 28)


@pytest.mark.parametrize(
    ("pixel", "theta", "moved_to"),
    [
        ((10, 12), [[1, 0, 2 * 3 / 28], [0, 1, 0]], (10, 9)),  # three to the left
        ((10, 12), [[1, 0, 0], [0, 1, 2 * 3 / 28]], (7, 12)),  # three up
        ((0, 13), [[0, -1, 0], [1, 0, 0]], (14, 0)),  # a quarter turn about the centre
    ],
)
def test_a_warp_moves_a_pixel_where_it_says(pixel, theta, moved_to):
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, *pixel] = 1

    moved = Warp(torch.tensor([theta], dtype=torch.float32)).apply(image)

    assert brightest(moved) == moved_to


def test_what_a_warp_moves_into_the_picture_is_black():
    five_to_the_left = torch.tensor([[[1, 0, 2 * 5 / 28], [0, 1, 0]]])

    moved = Warp(five_to_the_left).apply(to_unit_range(torch.full((1, 28, 28), 255, dtype=torch.uint8)))

    torch.testing.assert_close(moved[..., 23:], torch.zeros(1, 1, 28, 5), rtol=0, atol=10 * ROUNDING)
    torch.testing.assert_close(moved[..., :22], torch.ones(1, 1, 28, 22), rtol=0, atol=10 * ROUNDING)


@pytest.fixture(scope="module")
def displacements():
    """2,000 displacements of every pixel, (N, 28, 28, 2), with a standard deviation of 1.5 pixels."""
    return displacement(random_warp(2000, quick_params(elastic=1.5), make_generator(0, "test")).bumps)


def test_an_elastic_distortion_moves_each_pixel_as_far_as_asked_on_the_average(displacements):
    deviations = displacements.std(0)  # of each pixel, in x and in y

    assert displacements.mean().abs() < 0.05
    assert deviations.mean() == pytest.approx(1.5, rel=0.02)
    assert 1.35 < deviations.min() < deviations.max() < 1.65  # at the edges too


def test_an_elastic_distortion_is_as_smooth_as_simards(displacements):
    """White noise smoothed by a Gaussian of 4 pixels: its correlation falls to exp(-(distance / 8)²)."""
    for distance in (1, 4, 8):
        left, right = displacements[:, :, : 28 - distance, 0], displacements[:, :, distance:, 0]
        correlation = (left * right).mean() / (left.std() * right.std())
        assert correlation == pytest.approx(math.exp(-((distance / 8) ** 2)), abs=0.03)
    assert (displacements[..., 0] * displacements[..., 1]).mean().abs() < 0.05  # x and y are independent


def test_a_displacement_moves_the_picture_by_its_pixels():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 14, 14] = 1
    bumps = torch.zeros(1, 2, BUMPS, BUMPS)
    bumps[0, 0] = 1
    by = displacement(bumps)[0, 14, 14]

    moved = Warp(torch.eye(2, 3)[None], bumps * 3 / by[0]).apply(image)

    assert by[1] == 0
    assert brightest(moved) == (14, 11)


def test_without_an_elastic_distortion_nothing_more_is_drawn():
    generator, affine_alone = make_generator(0, "test"), make_generator(0, "test")

    warp = random_warp(10, quick_params(elastic=0.0), generator)

    assert warp.bumps is None
    assert torch.equal(warp.theta, random_affine(10, quick_params(), affine_alone))
    assert torch.equal(torch.rand(1, generator=generator), torch.rand(1, generator=affine_alone))
