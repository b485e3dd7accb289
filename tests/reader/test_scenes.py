"""The simulated photos: each kind is another picture for other random numbers, and the same for the same."""

import numpy as np
import pytest

from benchmarks import no_digits, scenes

T = np.linspace(0.3, 2 * np.pi + 0.29, 400)  # along a line whose ends do not meet
MAKERS = scenes.KINDS | {  # of no digit: from some digits
    kind: lambda image, rng, make=make: next(iter(make([(image, 2)] * 2, rng)))
    for kind, make in no_digits.KINDS.items()
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_picture_is_a_function_of_its_digit_and_its_random_numbers(digits, kind):
    image, other = digits[0][1000], digits[0][4000]
    other_seed = int(kind in no_digits.KINDS)  # most of these take no digit
    cases = ((image, 0), (image, 0), (other, other_seed))

    first, again, another = (MAKERS[kind](digit, np.random.default_rng(seed)) for digit, seed in cases)

    assert first.tobytes() == again.tobytes()
    assert kind == "faces" or first.tobytes() != another.tobytes()
    assert kind == "empty sheets" or np.ptp(np.asarray(first.convert("L"))) > 50  # something is to be seen


@pytest.mark.parametrize(
    ("line", "crossings"),
    [((np.cos(T), np.sin(T)), 0), ((np.sin(2 * T), np.sin(T)), 1), ((np.sin(2 * T), np.sin(3 * T + 0.3)), 7)],
    ids=["ring", "eight", "knot"],
)
def test_a_line_is_known_to_cross_itself(line, crossings):
    assert no_digits._crossings(np.stack(line, 1)) == crossings
