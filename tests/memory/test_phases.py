"""Phases: the rules by which a model is led from acquisition to maturity."""

import math
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from torchcram.memory.phases import ConsolidationRules, Phases


def phases(**rules) -> Phases:
    return Phases(
        ConsolidationRules(**{"shortest_acquisition": 10, "plateau_steps": 20, "mature_steps": 50, **rules})
    )


def routing(**rules) -> Phases:
    """Phases at the first step of routing."""
    made = phases(acquire_steps=1, **rules)
    made.observe(0, loss=1.0, read_rate=1.0)
    assert made.phase == "consolidate"
    return made


def acquired_at(loss, **rules) -> int:
    made = phases(**rules)
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
    assert acquired_at(lambda step: math.exp(-step / 100), acquire_steps=400) == 400


def test_a_loss_that_is_next_to_nothing_has_settled_however_steeply_it_still_falls():
    """It falls for ever, by a share; from 0.01 on that is nothing."""
    ended = acquired_at(lambda step: math.exp(-step / 10), acquire_steps=10_000)
    assert 46 + 20 <= ended <= 46 + 120
    assert acquired_at(lambda step: math.exp(-step / 10), acquire_steps=500, settled_loss=0.0) == 500


def test_routing_may_cost_what_is_next_to_nothing():
    """A reference of 1e-5 must not call a routed loss of 1e-3 broken quality."""
    made = routing(price_start=0.01, price_growth=1.1)
    made.observe_reference(1e-5, routed=1e-3)
    made.observe(1, loss=1.0, read_rate=0.5)
    assert made.price == pytest.approx(0.011)


def test_a_noisy_plateau_is_a_plateau():
    assert acquired_at(lambda step: 1.0 + 0.2 * math.sin(9.7 * step)) < 100


def test_a_loss_that_jumps_because_the_sequences_grow_is_no_plateau():
    """The loss falls all the time, but from step 40 on it is that of a harder task: no new low for a
    while, unless they are told."""

    def ended(*, told: bool) -> int | None:
        made = phases(acquire_steps=150)
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


def watch(made: Phases, start: int, steps: int, rate: float, *, noise: float = 0.0) -> list[str]:
    seen = []
    for step in range(start, start + steps):
        made.observe(step, loss=1.0, read_rate=rate * (1 + noise * math.sin(9.7 * step)))
        seen.append(made.phase)
    return seen


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_settled_read_rate_is_maturity(noise):
    """Also a noisy one: at 1.5% of 4,096 tokens a step counts about 60 reads, give or take a seventh."""
    made = routing()
    seen = watch(made, 1, 300, 0.015, noise=noise)
    assert seen[48] == "consolidate"
    assert seen[-1] == "mature"
    assert made.matured_at == 1 + seen.index("mature")


def test_a_falling_read_rate_is_not_mature():
    made = routing()
    for step in range(1, 300):
        made.observe(step, loss=1.0, read_rate=math.exp(-step / 60))
    assert made.phase == "consolidate"


def test_a_level_rate_is_not_mature_while_caution_still_falls():
    """Familiar queries still read, all of them: the level is a stop on the way down."""
    made = routing(caution_start=5.0, caution_fall=0.02)
    made.observe_reference(1.0, routed=1.0)
    seen = watch(made, 1, 400, 0.05)
    last_fall = seen.index("mature") - 50
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
    theirs = phases(acquire_steps=1)
    theirs.load_state_dict(state)
    assert theirs == ours
    assert watch(theirs, 21, 100, 0.4) == watch(ours, 21, 100, 0.4)
    assert theirs == ours


@pytest.mark.parametrize("changed", [{"prize": 1.0}, None])
def test_a_foreign_state_is_an_error(changed):
    state = {**routing().state_dict(), **changed} if changed else {}
    with pytest.raises(ValueError, match="the checkpoint is from another version"):
        phases().load_state_dict(state)


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
        ConsolidationRules(**rules)
