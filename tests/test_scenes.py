"""The simulated photos: each kind is another picture for other random numbers, and the same for the same."""

import numpy as np
import pytest

from benchmarks import no_digits, scenes


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


@pytest.mark.parametrize(("line", "crossings"), [("ring", 0), ("eight", 1), ("knot", 7)])
def test_a_line_is_known_to_cross_itself(line, crossings):
    t = np.linspace(0.3, 2 * np.pi + 0.29, 400)  # the ends do not meet
    lines = {
        "ring": (np.cos(t), np.sin(t)),
        "eight": (np.sin(2 * t), np.sin(t)),
        "knot": (np.sin(2 * t), np.sin(3 * t + 0.3)),
    }

    assert no_digits._crossings(np.stack(lines[line], 1)) == crossings
