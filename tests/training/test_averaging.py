"""Averaged weights: the mean of a young average, the recursion of an old one, and a model that gets its own weights back."""

import pytest
import torch
from torch import nn

from torchcram.training.averaging import MovingAverage


def averaged(values: list[float], *, steps: int) -> tuple[float, float]:
    """Let a weight take these values; return its average, and what it is afterwards."""
    model = nn.Linear(1, 1, bias=False)
    mean = MovingAverage(model, steps=steps)
    for value in values:
        nn.init.constant_(model.weight, value)
        mean.update()
    with mean.applied():
        inside = model.weight.item()
    return inside, model.weight.item()


def test_a_young_average_is_the_mean_of_its_steps():
    assert averaged([1.0, 3.0, 8.0], steps=10) == (4.0, 8.0)


def test_an_old_one_forgets_at_the_rate_of_its_reach():
    assert averaged([1.0, 3.0, 8.0], steps=2) == (0.5 * (0.5 * (1 + 3)) + 0.5 * 8, 8.0)


@pytest.mark.parametrize("steps", [0, 1])
def test_no_reach_is_the_latest_step(steps):
    assert averaged([1.0, 3.0, 8.0], steps=steps) == (8.0, 8.0)


def test_before_the_first_step_and_after_a_restart_there_is_nothing_to_apply():
    model = nn.Linear(1, 1)
    before = model.weight.item()
    mean = MovingAverage(model, steps=5)
    with mean.applied():
        assert model.weight.item() == before
    mean.update()
    mean.restart()
    nn.init.constant_(model.weight, 7.0)
    with mean.applied():
        assert model.weight.item() == 7.0
    mean.update()
    mean.keep()
    assert model.weight.item() == 7.0


def test_the_weights_come_back_when_judging_fails_and_buffers_are_left_alone():
    model = nn.BatchNorm1d(1)
    mean = MovingAverage(model, steps=5)
    mean.update()
    nn.init.constant_(model.weight, 2.0)
    model.running_mean.fill_(3.0)
    inside = []

    def judge() -> None:
        with mean.applied():
            inside.append(model.weight.item())
            raise RuntimeError("judge")

    with pytest.raises(RuntimeError, match="judge"):
        judge()
    assert inside == [1.0]
    assert (model.weight.item(), model.running_mean.item()) == (2.0, 3.0)


def test_what_is_kept_does_not_move_with_the_model():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    mean = MovingAverage(model, steps=4)
    mean.update()
    with torch.no_grad():
        model.weight.add_(5.0)
    mean.keep()
    assert model.weight.item() == 1.0
