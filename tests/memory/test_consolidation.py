"""Consolidation: the error and its quality, and the controller that leads a model from acquisition to
maturity."""

import math
from itertools import count

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from torchcram.memory.consolidation import (
    ConsolidationController,
    ControllerConfig,
    consolidation_quality,
    relative_error,
)
from torchcram.types import RoutingControl

# error and quality


def test_the_error_is_relative_to_the_retrieval():
    retrieval = torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]])
    answer = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    assert relative_error(answer, retrieval).tolist() == pytest.approx([0.0, 1.0, 0.0])
    assert relative_error(-answer, retrieval).tolist() == pytest.approx([4.0, 1.0, 0.0])


def test_the_error_teaches_the_answer_and_not_the_retrieval():
    answer, retrieval = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    relative_error(answer, retrieval).sum().backward()
    assert answer.grad.any()
    assert retrieval.grad is None


def test_quality_falls_from_one_with_the_error():
    error = torch.tensor([0.0, 0.5, 2.0], requires_grad=True)
    quality = consolidation_quality(error, variance=0.5)
    assert quality.tolist() == pytest.approx([1.0, math.exp(-1), math.exp(-4)])
    assert not quality.requires_grad


# the controller


def controller(**rules) -> ConsolidationController:
    return ConsolidationController(
        ControllerConfig(**{"shortest_acquisition": 10, "plateau_steps": 20, "mature_steps": 50, **rules})
    )


def routing(**rules) -> ConsolidationController:
    """A controller at the first step of routing."""
    made = controller(acquire_steps=1, **rules)
    made.observe(0, loss=1.0, read_rate=1.0)
    assert made.phase == "consolidate"
    return made


def acquired_at(loss, **rules) -> int:
    made = controller(**rules)
    for step in count():
        made.observe(step, loss=loss(step), read_rate=1.0)
        if made.acquired_at is not None:
            return made.acquired_at
    return -1


@pytest.mark.parametrize("fall_until", [100, 250])
def test_a_plateau_ends_acquisition_soon_after_it_begins(fall_until):
    """The loss falls for a while and then stays: the smoothed loss needs about 20 steps to see it, and the
    rule 20 more."""
    ended = acquired_at(lambda step: 3.0 * math.exp(-min(step, fall_until) / 50))
    assert fall_until + 20 <= ended <= fall_until + 120


def test_a_falling_loss_keeps_acquisition_going_until_its_longest():
    assert acquired_at(lambda step: math.exp(-step / 50), acquire_steps=400) == 400


def test_a_noisy_plateau_is_a_plateau():
    assert acquired_at(lambda step: 1.0 + 0.2 * math.sin(9.7 * step)) < 100


def test_a_loss_that_jumps_because_the_sequences_grow_is_no_plateau():
    """The loss falls all the time, but from step 40 on it is that of a harder task: no new low for a
    while, unless the controller is told."""

    def ended(*, told: bool) -> int | None:
        made = controller(acquire_steps=150)
        for step in range(150):
            if told and step == 40:
                made.harder_from(step)
            made.observe(
                step,
                loss=math.exp(-step / 30) if step < 40 else 3 * math.exp(-(step - 40) / 30),
                read_rate=1.0,
            )
        return made.acquired_at

    assert ended(told=False) < 80
    assert ended(told=True) > 100


def test_acquisition_has_a_shortest_time():
    assert acquired_at(lambda step: 1.0, shortest_acquisition=80) == 81


def test_nothing_is_routed_priced_or_explored_while_acquiring():
    made = controller()
    assert made.control() == made.evaluation_control() == RoutingControl(reads="all")
    assert not made.wants_reference(0)


def test_the_router_may_pay_while_everything_reads():
    made = controller(acquisition_price=0.2)
    assert made.control() == RoutingControl(reads="all", price=0.2)
    assert made.evaluation_control() == RoutingControl(reads="all")


@pytest.mark.parametrize("steady", [True, False])
def test_the_price_is_steady_in_every_phase_or_in_none(steady):
    acquiring, routed = controller(steady_price=steady, acquisition_price=0.1), routing(steady_price=steady)
    assert acquiring.control().steady is routed.control().steady is steady


def test_the_router_may_wait_until_reads_are_routed():
    assert controller(acquisition_price=None).control() == RoutingControl(reads="all", price=None)


def test_routing_explores_prices_and_teaches_in_training_only():
    made = routing(price_start=0.02, exploration=0.1, caution_start=5.0)
    assert made.control() == RoutingControl(
        exploration=0.1, price=0.02, threshold_shift=5.0, consolidate=True
    )
    assert made.evaluation_control() == RoutingControl(threshold_shift=5.0)
    assert [step for step in range(101) if made.wants_reference(step)] == [0, 25, 50, 75, 100]


def test_without_a_reference_neither_price_nor_caution_moves():
    made = routing()
    before = made.price, made.caution
    for step in range(1, 20):
        made.observe(step, loss=1.0, read_rate=0.5)
    assert (made.price, made.caution) == before


@pytest.mark.parametrize(("loss", "rises"), [(1.4, True), (1.6, False)])
def test_the_price_climbs_while_routing_costs_little_and_falls_when_it_costs_too_much(loss, rises):
    """Dual ascent on ``routed loss <= 1.5 x dense loss``."""
    made = routing(loss_tolerance=0.5, price_growth=1.1, caution_fall=0.1, caution_step=0.1)
    made.price, made.caution = 0.1, 4.0
    made.observe_reference(1.0, routed=loss)
    made.observe(1, loss=100.0, read_rate=0.5)
    assert made.price == pytest.approx(0.11 if rises else 0.1 / 1.1)
    assert made.caution == pytest.approx(3.9 if rises else 4.2)


def test_caution_falls_fast_until_quality_first_breaks_and_in_small_steps_from_then_on():
    made = routing(loss_tolerance=0.5, caution_start=5.0, caution_fall=0.1, caution_step=0.01)
    caution = []
    for step, routed in enumerate((1.0, 9.0, 1.0), start=1):
        made.dense_loss, made.routed_loss = 1.0, routed
        made.observe(step, loss=1.0, read_rate=0.5)
        caution.append(made.caution)
    assert caution == pytest.approx([4.9, 4.92, 4.91])


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=60))
def test_price_and_caution_stay_in_their_bounds(history):
    made = routing(price_start=0.05, price_most=0.2, price_growth=1.5, caution_start=2.0, caution_fall=0.3)
    made.observe_reference(1.0, routed=1.0)
    for step, (loss, refer) in enumerate(history, start=1):
        if refer:
            made.observe_reference(loss, routed=1.0)
        made.observe(step, loss=loss, read_rate=0.5)
        assert 0.05 <= made.price <= 0.2
        assert 0.0 <= made.caution <= 2.0


def test_reference_and_routed_loss_are_smoothed_in_pairs():
    made = routing()
    for reference, routed in ((1.0, 2.0), (3.0, 4.0)):
        made.observe_reference(reference, routed=routed)
    assert made.dense_loss == pytest.approx(0.5 * 1.0 + 0.5 * 3.0)
    assert made.routed_loss == pytest.approx(0.5 * 2.0 + 0.5 * 4.0)


def watch(
    made: ConsolidationController, start: int, steps: int, rate: float, *, noise: float = 0.0
) -> list[str]:
    phases = []
    for step in range(start, start + steps):
        made.observe(step, loss=1.0, read_rate=rate * (1 + noise * math.sin(9.7 * step)))
        phases.append(made.phase)
    return phases


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_settled_read_rate_is_maturity(noise):
    """Also a noisy one: at 1.5% of 4,096 tokens a step counts about 60 reads, give or take a seventh."""
    made = routing()
    phases = watch(made, 1, 300, 0.015, noise=noise)
    assert phases[48] == "consolidate"
    assert phases[-1] == "mature"
    assert made.matured_at == 1 + phases.index("mature")


def test_a_falling_read_rate_is_not_mature():
    made = routing()
    for step in range(1, 300):
        made.observe(step, loss=1.0, read_rate=math.exp(-step / 60))
    assert made.phase == "consolidate"


def test_a_level_rate_is_not_mature_while_caution_still_falls():
    """Familiar queries still read, all of them: the level is a stop on the way down."""
    made = routing(caution_start=5.0, caution_fall=0.02)
    made.observe_reference(1.0, routed=1.0)
    phases = watch(made, 1, 400, 0.05)
    last_fall = phases.index("mature") - 50
    assert 225 - 1 <= last_fall <= 250
    assert made.phase == "mature"


def test_no_reads_at_all_are_settled():
    made = routing()
    watch(made, 1, 20, 0.5)
    assert watch(made, 21, 400, 0.0)[-1] == "mature"


def test_rising_reads_are_reconsolidation_and_settle_again():
    """A drift of the data: reads rise by themselves, and fall once the new patterns are learned."""
    made = routing()
    watch(made, 1, 300, 0.015)
    assert made.phase == "mature"
    assert "consolidate" in watch(made, 301, 30, 0.05)
    assert watch(made, 331, 400, 0.015)[-1] == "mature"
    assert made.matured_at > 331


def test_fewer_reads_do_not_end_maturity():
    made = routing()
    watch(made, 1, 300, 0.05)
    assert set(watch(made, 301, 100, 0.015)) == {"mature"}


def test_its_state_is_plain_numbers_that_continue_it():
    ours = routing()
    ours.observe_reference(1.0, routed=1.2)
    watch(ours, 1, 20, 0.4)
    state = ours.state_dict()
    assert all(value is None or isinstance(value, str | int | float) for value in state.values())
    theirs = controller(acquire_steps=1)
    theirs.load_state_dict(state)
    assert theirs == ours
    assert watch(theirs, 21, 100, 0.4) == watch(ours, 21, 100, 0.4)
    assert theirs == ours


@pytest.mark.parametrize("changed", [{"prize": 1.0}, None])
def test_a_foreign_state_is_an_error(changed):
    state = {**routing().state_dict(), **changed} if changed else {}
    with pytest.raises(ValueError, match="the checkpoint is from another version"):
        controller().load_state_dict(state)


@pytest.mark.parametrize(
    "rules",
    [
        {"price_growth": 0.9},
        {"exploration": 1.1},
        {"plateau_gain": 0.0},
        {"reference_every": 0},
        {"prce_start": 1.0},
        {"price_start": 0.5},
    ],
)
def test_impossible_rules_are_errors(rules):
    with pytest.raises(ValidationError, match=next(iter(rules))):
        ControllerConfig(**rules)
