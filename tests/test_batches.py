"""The batches of an epoch: their seeds, their order, their warps."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.project import quick_params
from helpers.training import MNIST_INPUT

from src.images.dataset import Images
from src.pipeline.process import UserError
from src.resnet.inference import to_input
from src.sampling.seeding import derive_seed, make_generator
from src.train.batches import BUMPS, Batches, ImagesOnDevice, Warp, displacement, random_affine, random_warp
from src.train.processes import ProcessGroup

GREY_LEVEL = 1 / 255 / 0.3081  # the least difference of two pixels, in what the network sees
ROUNDING = 1e-6  # of float32 numbers of about 1, whose own is 6e-8


# Seeds


def test_seeds_of_different_purposes_are_all_different_and_the_same_everywhere():
    purposes = itertools.product(range(10), ("order", "augment"), range(10), range(5))

    assert len({derive_seed(*purpose) for purpose in purposes}) == 1000
    assert make_generator(0, "order", 1).initial_seed() == derive_seed(0, "order", 1) == 1_332_101_017_241_992_705


# Which images, in which order


@pytest.fixture(scope="module")
def hundred(digits):
    """A hundred digits, labelled by their numbers, so that a batch tells which images it holds."""
    return Images(digits[0][::50], np.arange(100))


def make_batches(data, rank=0, world_size=1, **values) -> Batches:
    """The batches of one of several processes, of at most 16 images."""
    params = quick_params(**{"batch_size": 16} | values)
    return Batches(ImagesOnDevice(data, torch.device("cpu")), params, MNIST_INPUT, ProcessGroup(rank, world_size))


def numbers(batches, epoch) -> list[int]:
    return torch.cat([batch.labels for batch in batches.epoch(epoch)]).tolist()


def test_an_epoch_takes_each_image_once_in_an_order_of_its_own_in_batches_whose_sizes_differ_by_one_at_most(hundred):
    batches, order = make_batches(hundred), numbers(make_batches(hundred), 0)

    sizes = [batch.size for batch in batches.epoch(0)]

    assert sorted(order) == list(range(100))
    assert sizes == [len(batch.inputs) for batch in batches.epoch(0)] == [15, 15, 14, 14, 14, 14, 14]
    assert order == numbers(batches, 0)
    assert order not in (numbers(batches, 1), numbers(make_batches(hundred, seed=1), 0))


def test_the_processes_shards_are_the_one_processs_batches(hundred):
    alone = make_batches(hundred, elastic=0.5).epoch(1)

    by_rank = [make_batches(hundred, rank, 3, elastic=0.5).epoch(1) for rank in range(3)]

    for batch, *shards in zip(alone, *by_rank, strict=True):
        assert torch.equal(torch.cat([shard.labels for shard in shards]), batch.labels)
        inputs = torch.cat([shard.inputs for shard in shards])
        # A warp's products are split otherwise in a smaller batch, so its sums may round otherwise.
        torch.testing.assert_close(inputs, batch.inputs, rtol=0, atol=GREY_LEVEL / 100)
        assert {shard.size for shard in shards} == {batch.size}


def test_the_plain_images_are_chosen_by_the_seed_alone_and_shared_by_the_processes(hundred, monkeypatch):
    monkeypatch.setattr("src.train.batches.PLAIN_IMAGES", 50)
    images = torch.from_numpy(hundred.images)
    chosen, again, others = (
        torch.cat(list(make_batches(hundred, elastic=elastic, seed=seed).plain()))
        for elastic, seed in ((0.5, 0), (0.0, 0), (0.5, 1))
    )
    shards = [torch.cat(list(make_batches(hundred, rank, 3).plain())) for rank in range(3)]

    assert torch.equal(again, chosen)
    assert not torch.equal(others, chosen)
    unwarped = to_input(images, MNIST_INPUT).flatten(1)
    assert len({(unwarped == each).all(1).nonzero().item() for each in chosen.flatten(1)}) == 50
    assert torch.equal(torch.cat(shards), chosen)


def test_a_batch_that_leaves_a_process_a_single_image_is_refused(hundred):
    with pytest.raises(UserError, match=r"batch_size = 8 .* 4 processes"):
        make_batches(hundred, world_size=4, batch_size=8)  # evened out, some have seven


def test_an_image_is_warped_anew_in_each_epoch_and_step_and_by_each_seed_and_not_without_augmentation():
    alike = Images(np.full((32, 28, 28), 255, np.uint8), np.arange(32))
    batches = make_batches(alike)

    first, later, second = (next(batches.epoch(*place)).inputs for place in ((0, 0), (1, 0), (0, 1)))
    another = next(make_batches(alike, seed=1).epoch(0)).inputs
    unwarped = next(make_batches(alike, augment=False).epoch(0)).inputs

    assert not any(torch.equal(first, other) for other in (later, second, another))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(unwarped, unwarped[:1].expand_as(unwarped))


# Warps


def draw_warps(**limits) -> torch.Tensor:
    """A thousand warps, with no limit above 0 but the ones given."""
    nothing = {"max_rotation": 0.0, "max_shift": 0.0, "max_scaling": 0.0}
    return random_affine(1000, quick_params(**nothing | limits), make_generator(0, "test"))


def degrees(warps: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(torch.atan2(warps[:, 1, 0], warps[:, 0, 0]))


@pytest.mark.parametrize(
    ("limits", "measure", "lower", "upper"),
    [
        ({"max_shift": 2.0}, lambda warps: warps[:, 0, 2] * 14, -2, 2),  # from half the side to pixels
        ({"max_shift": 2.0}, lambda warps: warps[:, 1, 2] * 14, -2, 2),
        ({"max_rotation": 12.0}, degrees, -12, 12),
        ({"max_scaling": 0.1}, lambda warps: 1 / warps[:, 0, 0], 0.9, 1.1),
        ({}, lambda warps: (warps - torch.eye(2, 3)).abs().amax((1, 2)), 0, 0),
    ],
    ids=["shift in x", "shift in y", "rotation", "scaling", "none"],
)
def test_a_warp_stays_within_its_limit_and_reaches_it(limits, measure, lower, upper):
    measured = measure(draw_warps(**limits))

    room = (upper - lower) / 100
    assert lower - 12 * ROUNDING <= measured.min() <= lower + room + ROUNDING
    assert upper - room - ROUNDING <= measured.max() <= upper + 12 * ROUNDING


def test_the_parts_of_a_warp_are_drawn_independently():
    warps = draw_warps(max_rotation=15.0, max_shift=2.0)

    correlations = torch.corrcoef(torch.stack([degrees(warps), warps[:, 0, 2], warps[:, 1, 2]]))

    assert (correlations - torch.eye(3)).abs().max() < 0.1  # of a thousand: three standard errors


def brightest(images: torch.Tensor) -> tuple[int, int]:
    return divmod(images[0, 0].argmax().item(), 28)


@pytest.mark.parametrize(
    ("pixel", "theta", "moved_to"),
    [
        ((10, 12), [[1, 0, 2 * 3 / 28], [0, 1, 0]], (10, 9)),  # three to the left
        ((0, 13), [[0, -1, 0], [1, 0, 0]], (14, 0)),  # a quarter turn about the centre
    ],
)
def test_a_warp_moves_a_pixel_where_it_says_and_leaves_black(pixel, theta, moved_to):
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, *pixel] = 1

    warp = Warp(torch.tensor([theta], dtype=torch.float32))

    assert brightest(warp.apply(image)) == moved_to
    assert (warp.apply(torch.ones(1, 1, 28, 28)) > 0.99).sum() == round(28 * (28 - 14 * theta[0][2]))


def test_an_elastic_distortion_moves_each_pixel_as_far_as_asked_and_is_as_smooth_as_simards():
    """White noise smoothed by a Gaussian of 4 pixels: its correlation falls to exp(-(distance / 8)²)."""
    drawn = displacement(random_warp(2000, quick_params(elastic=1.5), make_generator(0, "test")).bumps)
    deviations = drawn.std(0)  # of each pixel, in x and in y

    assert 1.35 < deviations.min() < deviations.max() < 1.65  # at the edges too
    correlation = (drawn[:, :, :20] * drawn[:, :, 8:]).mean() / drawn.var()
    assert correlation == pytest.approx(math.exp(-1), abs=0.03)
    assert (drawn[..., 0] * drawn[..., 1]).mean().abs() < 0.05  # x and y are independent


def test_a_displacement_moves_the_picture_by_its_pixels():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 14, 14] = 1
    bumps = torch.zeros(1, 2, BUMPS, BUMPS)
    bumps[0, 0] = 1
    by = displacement(bumps)[0, 14, 14]

    moved = Warp(torch.eye(2, 3)[None], bumps * 3 / by[0]).apply(image)

    assert by[1] == 0
    assert brightest(moved) == (14, 11)
