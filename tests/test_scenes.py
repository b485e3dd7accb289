"""The photos that nobody took: each kind is another picture for other random numbers, and the same for the same."""

import numpy as np
import pytest

from benchmarks.scenes import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_a_function_of_its_digit_and_its_random_numbers(digits, kind):
    image, other = digits[0][1000], digits[0][4000]

    first, again, another = (KINDS[kind](digit, np.random.default_rng(0)) for digit in (image, image, other))

    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != another.tobytes()
    assert np.ptp(np.asarray(first.convert("L"))) > 50  # something is to be seen
