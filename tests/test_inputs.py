"""From uint8 images to what the network sees, and the warps of the augmentation."""

import math

import pytest
import torch
from helpers.project import quick_params

from src.resnet.inference import BUMPS, Warp, displacement, to_input
from src.sampling.seeding import make_generator
from src.train.batches import random_affine, random_warp

GREY_LEVEL = 1 / 255 / 0.3081  # the least difference of two pixels, in what the network sees
ROUNDING = 1e-6  # of float32 numbers of about 1, whose own is 6e-8


def draw_warps(**limits) -> torch.Tensor:
    """A thousand warps, with no limit above 0 but the ones given."""
    nothing = {"max_rotation": 0.0, "max_shift": 0.0, "max_scaling": 0.0}
    return random_affine(1000, quick_params(**nothing | limits), make_generator(0, "test"))


def test_black_and_white_are_normalised_by_mnists_mean_and_standard_deviation():
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    images[1] = 255

    black, white = to_input(images, 28)

    assert black.unique().tolist() == pytest.approx([-0.1307 / 0.3081])
    assert white.unique().tolist() == pytest.approx([(1 - 0.1307) / 0.3081])


@pytest.mark.parametrize("image_size", [28, 32, 64])
def test_an_image_is_resized_to_the_size_that_is_asked_for(image_size):
    inputs = to_input(torch.zeros(3, 28, 28, dtype=torch.uint8), image_size)

    assert inputs.shape == (3, 1, image_size, image_size)
    assert inputs.dtype == torch.float32


def test_the_images_themselves_stay_as_they_are(digits):
    images = torch.from_numpy(digits[0][:10]).clone()

    to_input(images, 28)

    assert torch.equal(images, torch.from_numpy(digits[0][:10]))


def test_no_limits_no_warp(digits):
    images = torch.from_numpy(digits[0][:1000])

    warped = to_input(images, 28, Warp(draw_warps()))

    torch.testing.assert_close(warped, to_input(images, 28), rtol=0, atol=GREY_LEVEL / 100)


def test_shifts_stay_within_their_limit_and_reach_it():
    shifts = draw_warps(max_shift=2.0)[:, :, 2] * 14  # from half the side to pixels

    assert 1.9 < shifts.max() <= 2
    assert -2 <= shifts.min() < -1.9


def test_rotations_stay_within_their_limit_and_reach_it():
    warps = draw_warps(max_rotation=12.0)

    degrees = torch.rad2deg(torch.atan2(warps[:, 1, 0], warps[:, 0, 0]))
    assert 11.9 < degrees.max() <= 12 + 12 * ROUNDING
    assert -12 - 12 * ROUNDING <= degrees.min() < -11.9


def test_the_parts_of_a_warp_are_drawn_independently():
    warps = draw_warps(max_rotation=15.0, max_shift=2.0, max_scaling=0.15)

    angles = torch.atan2(warps[:, 1, 0], warps[:, 0, 0])
    scales = torch.hypot(warps[:, 0, 0], warps[:, 1, 0])
    correlations = torch.corrcoef(torch.stack([angles, scales, warps[:, 0, 2], warps[:, 1, 2]]))

    assert (correlations - torch.eye(4)).abs().max() < 0.1  # of a thousand: three standard errors


def test_a_rotation_scales_nothing():
    warps = draw_warps(max_rotation=12.0).double()

    areas = warps[:, 0, 0] * warps[:, 1, 1] - warps[:, 0, 1] * warps[:, 1, 0]
    torch.testing.assert_close(areas, torch.ones_like(areas), rtol=0, atol=ROUNDING)


def test_scalings_stay_within_their_limit_and_reach_it():
    scales = 1 / draw_warps(max_scaling=0.1)[:, 0, 0]

    assert 1.099 < scales.max() <= 1.1 + ROUNDING
    assert 0.9 - ROUNDING <= scales.min() < 0.901


def test_a_shift_by_whole_pixels_moves_the_picture_by_them():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 10, 12] = 255
    three_to_the_left = torch.tensor([[[1, 0, 2 * 3 / 28], [0, 1, 0]]])

    moved = to_input(image, 28, Warp(three_to_the_left))[0, 0]

    row, column = divmod(moved.argmax().item(), 28)
    assert (row, column) == (10, 9)


def test_a_quarter_turn_turns_the_picture_about_its_centre():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 0, 13] = 255  # in the middle of the upper edge
    turn = math.pi / 2
    quarter = torch.tensor([[[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0]]])

    turned = to_input(image, 28, Warp(quarter))[0, 0]

    row, column = divmod(turned.argmax().item(), 28)
    assert (row, column) == (14, 0)


def test_what_a_warp_moves_into_the_picture_is_black():
    white = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    five_to_the_left = torch.tensor([[[1, 0, 2 * 5 / 28], [0, 1, 0]]])

    moved = to_input(white, 28, Warp(five_to_the_left))[0, 0]

    black = torch.full((28, 5), -0.1307 / 0.3081)
    torch.testing.assert_close(moved[:, 23:], black, rtol=0, atol=GREY_LEVEL / 100)


def draw_displacements(count: int = 2000) -> torch.Tensor:
    """Displacements of every pixel, (N, 28, 28, 2), with a standard deviation of 1.5 pixels."""
    warp = random_warp(count, quick_params(elastic=1.5), make_generator(0, "test"))
    return displacement(warp.bumps)


def test_an_elastic_distortion_moves_each_pixel_as_far_as_asked_on_the_average():
    drawn = draw_displacements()

    deviations = drawn.std(0)  # of each pixel, in x and in y
    assert drawn.mean().abs() < 0.05
    assert deviations.mean() == pytest.approx(1.5, rel=0.02)
    assert deviations.min() > 1.35  # at the edges too
    assert deviations.max() < 1.65


def test_an_elastic_distortion_is_as_smooth_as_simards():
    """White noise smoothed by a Gaussian of 4 pixels: its correlation falls to exp(-(distance / 8)²)."""
    drawn = draw_displacements()

    for distance in (1, 4, 8):
        left, right = drawn[:, :, : 28 - distance, 0], drawn[:, :, distance:, 0]
        correlation = (left * right).mean() / (left.std() * right.std())
        assert correlation == pytest.approx(math.exp(-((distance / 8) ** 2)), abs=0.03)
    assert (drawn[..., 0] * drawn[..., 1]).mean().abs() < 0.05  # x and y have nothing to do with each other


def test_a_displacement_moves_the_picture_by_its_pixels():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 14, 14] = 255
    bumps = torch.zeros(1, 2, BUMPS, BUMPS)
    bumps[0, 0] = 1
    by = displacement(bumps)[0, 14, 14]

    moved = to_input(image, 28, Warp(torch.eye(2, 3)[None], bumps * 3 / by[0]))[0, 0]

    row, column = divmod(moved.argmax().item(), 28)
    assert by[1] == 0
    assert (row, column) == (14, 11)


def test_without_an_elastic_distortion_nothing_more_is_drawn():
    generator, affine_alone = make_generator(0, "test"), make_generator(0, "test")

    warp = random_warp(10, quick_params(elastic=0.0), generator)

    assert warp.bumps is None
    assert torch.equal(warp.theta, random_affine(10, quick_params(), affine_alone))
    assert torch.equal(torch.rand(1, generator=generator), torch.rand(1, generator=affine_alone))
