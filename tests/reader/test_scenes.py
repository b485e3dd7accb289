"""The simulated photos: each kind is another picture for other random numbers, and the same for the same."""

import numpy as np
import pytest

from benchmarks import no_digits, scenes

T = np.linspace(0.3, 2 * np.pi + 0.29, 400)  # along a line whose ends do not meet


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_a_scene_is_a_function_of_its_digit_and_its_random_numbers(digits, kind):
    image, other = digits[0][1000], digits[0][4000]

    first, again, another = (scenes.KINDS[kind](digit, np.random.default_rng(0)) for digit in (image, image, other))

    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != another.tobytes()
    assert np.ptp(np.asarray(first.convert("L"))) > 50  # something is to be seen


@pytest.mark.parametrize("kind", no_digits.KINDS)
def test_a_picture_of_no_digit_is_a_function_of_its_random_numbers(digits, kind):
    some = [(digits[0][1000], 2), (digits[0][4000], 8)]

    first, again, other = (next(iter(no_digits.KINDS[kind](some, np.random.default_rng(seed)))) for seed in (0, 0, 1))

    assert first.tobytes() == again.tobytes()
    assert kind == "faces" or first.tobytes() != other.tobytes()


@pytest.mark.parametrize(
    ("line", "crossings"),
    [((np.cos(T), np.sin(T)), 0), ((np.sin(2 * T), np.sin(T)), 1), ((np.sin(2 * T), np.sin(3 * T + 0.3)), 7)],
    ids=["ring", "eight", "knot"],
)
def test_a_line_is_known_to_cross_itself(line, crossings):
    assert no_digits._crossings(np.stack(line, 1)) == crossings
