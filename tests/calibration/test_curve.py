"""A search asks seldom, and finds what asking everywhere would find."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planted_risks import SHIFTS, ToyModel
from torchcram.calibration.choice import choose_shift
from torchcram.calibration.curve import BEYOND, Judgement, RiskCurve, joined, risk_curve, shift_grid
from torchcram.calibration.rule import Rule


def everywhere(model: ToyModel, shifts=SHIFTS) -> RiskCurve:
    """The curve by asking about every unit at every shift."""
    judged = [model(shift, torch.arange(model.units)) for shift in shifts]
    losses, skipped, reads = (
        torch.stack([getattr(one, name) for one in judged], 1) for name in ("losses", "skipped", "reads")
    )
    return RiskCurve(shifts=tuple(shifts), losses=losses.cummax(1).values, skipped=skipped, reads=reads)


def assert_equal(one: RiskCurve, other: RiskCurve) -> None:
    assert one.shifts == other.shifts
    for name in ("losses", "skipped", "reads"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


toys = st.builds(ToyModel, st.integers(1, 12), tokens=st.integers(1, 6), seed=st.integers(0, 999))


@given(toys)
def test_the_whole_curve_is_that_of_asking_everywhere(toy):
    assert_equal(risk_curve(toy, units=toy.units, shifts=SHIFTS), everywhere(toy))


@given(toys, st.floats(0.01, 0.9))
def test_a_curve_ends_with_the_first_shift_that_fails(toy, most):
    def fails(losses):
        return float(losses.mean()) > most

    curve, whole = risk_curve(toy, units=toy.units, shifts=SHIFTS, fails=fails), everywhere(toy)
    failing = [index for index in range(len(SHIFTS)) if fails(whole.losses[:, index])]
    end = 1 + (failing[0] if failing else len(SHIFTS) - 1)
    assert curve.shifts == SHIFTS[:end]
    assert torch.equal(curve.losses, whole.losses[:, :end])
    assert torch.equal(curve.skipped, whole.skipped[:, :end])


@pytest.mark.parametrize("bound", ["mean", "betting"])
@given(seed=st.integers(0, 999), tolerance=st.sampled_from([0.1, 0.2, 0.4]))
def test_a_rule_chooses_as_on_the_whole_grid(bound, seed, tolerance):
    toy, rule = ToyModel(40, tokens=3, seed=seed), Rule(risk_tolerance=tolerance, bound=bound)
    chosen = choose_shift(risk_curve(toy, units=40, shifts=SHIFTS, fails=rule.fails), rule)
    whole = choose_shift(everywhere(toy), rule)
    for name in ("threshold_shift", "next_shift", "further_sequences"):
        assert getattr(chosen, name) == getattr(whole, name)
    assert chosen.empirical_risk == pytest.approx(whole.empirical_risk)
    assert chosen.skipped_share == pytest.approx(whole.skipped_share)


def test_units_that_do_not_change_are_not_asked_again():
    toy = ToyModel(50, tokens=3, seed=1)
    risk_curve(toy, units=50, shifts=SHIFTS)
    # A unit of 2 x 3 tokens has seven states or so; each is found by halving.
    assert sum(toy.asked) < 50 * len(SHIFTS) / 2
    whole, toy.asked = sum(toy.asked), []
    risk_curve(toy, units=50, shifts=SHIFTS, fails=Rule(risk_tolerance=0.05).fails)
    assert sum(toy.asked) < whole / 1.5


def test_a_model_that_never_changes_is_asked_once_for_each_halving():
    asked = []

    def judge(shift, units):
        asked.append(shift)
        same = torch.zeros(len(units))
        return Judgement(losses=same, skipped=same, reads=same, routes=(b"",) * len(units))

    curve = risk_curve(judge, units=5, shifts=SHIFTS)
    assert curve.losses.shape == (5, len(SHIFTS))
    assert len(asked) <= 8 < len(SHIFTS)


def test_a_curve_that_fails_at_once_has_one_shift():
    toy = ToyModel(5, tokens=2, seed=0)
    curve = risk_curve(toy, units=5, shifts=SHIFTS, fails=lambda losses: True)
    assert curve.shifts == SHIFTS[:1]
    assert toy.asked == [5]


def test_a_unit_without_scored_answers_loses_none():
    def judge(shift, units):
        nothing = torch.full((len(units),), torch.nan)
        routes = tuple(bytes([shift > 0]) for _ in units)
        return Judgement(losses=nothing, skipped=nothing, reads=nothing, routes=routes)

    curve = risk_curve(judge, units=3, shifts=SHIFTS)
    assert not curve.losses.any()
    assert curve.skipped.isnan().all()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99), st.data())
def test_joined_judges_are_asked_about_their_own_units(counts, seed, data):
    toys = [ToyModel(count, tokens=2, seed=seed + index) for index, count in enumerate(counts)]
    units = sorted(data.draw(st.sets(st.integers(0, sum(counts) - 1), min_size=1)))
    answer = joined(list(zip(counts, toys, strict=True)))(0.3, torch.tensor(units))
    every = [toy(0.3, torch.arange(toy.units)) for toy in toys]
    assert torch.equal(answer.losses, torch.cat([one.losses for one in every])[units])
    assert torch.equal(answer.reads, torch.cat([one.reads for one in every])[units])
    routes = [own for one in every for own in one.routes]
    assert answer.routes == tuple(routes[unit] for unit in units)


@given(st.floats(-9, 9), st.floats(0, 3), st.sampled_from([0.1, 0.25, 1.0]))
def test_the_grid_reaches_from_nothing_familiar_to_everything(threshold, spread, resolution):
    thresholds = [threshold, threshold + spread]
    grid = torch.tensor(shift_grid(thresholds, resolution=resolution), dtype=torch.float64)
    assert torch.allclose(-grid.diff(), torch.tensor(resolution, dtype=torch.float64))
    assert min(thresholds) + grid[0] == pytest.approx(BEYOND)
    assert max(thresholds) + grid[-1] <= -BEYOND + 1e-9
    # Predictions are cut at probabilities of one in a million.
    assert torch.logit(torch.tensor(1.0), eps=1e-6) < BEYOND


def test_where_the_thresholds_stand_does_not_change_what_is_tried():
    tried = [[threshold + shift for shift in shift_grid([threshold])] for threshold in (-0.4, 3.1, 14.0)]
    assert tried[0] == pytest.approx(tried[1])
    assert tried[0] == pytest.approx(tried[2])
