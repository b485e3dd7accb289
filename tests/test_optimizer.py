"""The learning rate of each step, the optimizer, and the decay of the averaged weights."""

import math

import pytest
import torch
from helpers.project import quick_params
from torch import nn

from src.train.trainer import average_decay, build_optimizer, build_schedule


def settings(steps, name, **values) -> list:
    """A setting of the optimizer at each step of a run."""
    params = quick_params(**values)
    optimizer = build_optimizer(params, nn.Linear(1, 1))
    schedule = build_schedule(params, optimizer, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0][name])
        optimizer.step()
        schedule.step()
    return found


def learning_rates(steps, **values) -> list[float]:
    return settings(steps, "lr", **values)


def test_a_constant_rate_stays():
    assert learning_rates(5, schedule="constant", lr=0.5) == [0.5] * 5


def test_one_cycle_rises_over_the_first_three_tenths_and_then_falls():
    rates = learning_rates(100, schedule="one_cycle", lr=0.5)

    assert rates[:30] == sorted(rates[:30])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert max(rates) == pytest.approx(0.5, rel=0.01)  # the peak lies between two steps


def test_one_cycles_last_step_still_moves_the_weights():
    rates = learning_rates(100, schedule="one_cycle", lr=0.5)

    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_adams_betas_stay_at_their_defaults(schedule):
    assert settings(10, "betas", schedule=schedule) == [(0.9, 0.999)] * 10


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_has_a_rate_for_each_step_of_the_shortest_runs(steps):
    rates = learning_rates(steps, schedule="one_cycle", lr=0.5)

    assert len(rates) == steps
    assert min(rates) > 0


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_asked_for(name, kind):
    optimizer = build_optimizer(quick_params(optimizer=name, lr=0.5, weight_decay=0.25), nn.Linear(1, 1))

    assert type(optimizer) is kind
    assert optimizer.defaults["lr"] == 0.5
    assert optimizer.defaults["weight_decay"] == 0.25


def test_the_average_starts_with_a_small_decay_and_then_keeps_the_one_asked_for():
    assert average_decay(0.998, 0) == 0.1
    assert average_decay(0.998, 8) == 0.5
    assert average_decay(0.998, 100_000) == 0.998


def test_the_average_soon_forgets_the_first_weights():
    remembered = math.prod(average_decay(0.998, step) for step in range(300))

    assert remembered < 1e-6
