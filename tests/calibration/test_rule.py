"""What a rule certifies, on losses whose risk is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcram.calibration.rule import Rule

BOUNDS = ("mean", "betting")
losses = st.lists(st.floats(0, 1), min_size=30, max_size=60)


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, 2, math.nan, math.inf])
def test_a_tolerance_lies_between_0_and_1(tolerance):
    with pytest.raises(ValueError, match=r"risk_tolerance .* must lie strictly between 0 and 1"):
        Rule(risk_tolerance=tolerance)
    with pytest.raises(ValueError, match=r"confidence .* must lie strictly between 0 and 1"):
        Rule(risk_tolerance=0.1, confidence=tolerance)


def test_bounds_have_names():
    with pytest.raises(ValueError, match="unknown bound 'meen': did you mean 'mean'"):
        Rule(risk_tolerance=0.1, bound="meen")


@pytest.mark.parametrize(
    ("bound", "tolerance", "needed"),
    [
        ("mean", 0.05, 19),
        ("mean", 0.01, 99),
        ("mean", 0.005, 199),
        ("mean", 0.3, 3),
        ("mean", 0.5, 1),
        ("betting", 0.05, 48),
        ("betting", 0.01, 232),
        ("betting", 0.5, 6),
    ],
)
def test_too_few_units_are_refused_by_the_exact_number(bound, tolerance, needed):
    """As many as needed certify a model that never loses; one fewer would not, whatever the model does."""
    rule = Rule(risk_tolerance=tolerance, bound=bound)
    assert rule.units_needed == needed
    rule.check_units(needed)
    message = (
        f"{needed - 1} calibration sequences cannot certify a risk of {tolerance}: at least {needed} are"
    )
    with pytest.raises(ValueError, match=message):
        rule.check_units(needed - 1)
    assert not rule.fails(torch.zeros(needed))
    assert needed == 1 or rule.fails(torch.zeros(needed - 1))


@given(losses, st.floats(0.05, 0.9))
def test_the_mean_rule_is_that_of_conformal_risk_control(rows, tolerance):
    column = torch.tensor(rows, dtype=torch.float64)
    bound = (len(rows) * column.mean() + 1) / (len(rows) + 1)
    assert Rule(risk_tolerance=tolerance).fails(column) == bool(bound > tolerance)


@pytest.mark.parametrize("bound", BOUNDS)
@given(rows=losses, tolerance=st.floats(0.05, 0.9), seed=st.integers(0, 99))
def test_larger_losses_fail_sooner_and_their_order_does_not_matter(bound, rows, tolerance, seed):
    rule, generator = Rule(risk_tolerance=tolerance, bound=bound), torch.Generator().manual_seed(seed)
    column = torch.tensor(rows, dtype=torch.float64)
    larger = torch.maximum(column, torch.rand(len(column), generator=generator, dtype=torch.float64))
    assert rule.fails(larger) or not rule.fails(column)
    assert rule.fails(column[torch.randperm(len(column), generator=generator)]) == rule.fails(column)


@pytest.mark.parametrize("sizes", [1, 6])
@pytest.mark.parametrize(("tolerance", "units"), [(0.05, 100), (0.05, 1000), (0.2, 60)])
def test_a_bettor_errs_no_more_often_than_his_confidence_allows(tolerance, units, sizes):
    """The risk is just above the tolerance: certifying it is an error. Losses are shares of ``sizes``
    answers."""
    trials, generator = 2000, torch.Generator().manual_seed(0)
    wrong = torch.rand(units, sizes, trials, generator=generator, dtype=torch.float64) < tolerance * 1.0001
    rule = Rule(risk_tolerance=tolerance, bound="betting", confidence=0.9)
    share = float(rule.certifies(wrong.double().mean(1)).double().mean())
    assert share <= 0.1 + 5 * (0.1 * 0.9 / trials) ** 0.5
    # And it is no bound that never certifies: at a third of the tolerance it mostly does, given enough.
    if units == 1000:
        assert rule.certifies((wrong.double() / 3).mean(1)).double().mean() > 0.9


@pytest.mark.parametrize("bound", BOUNDS)
@given(rows=losses, tolerance=st.sampled_from([0.05, 0.2, 0.6]))
def test_the_told_number_of_units_is_the_least_that_certifies(bound, rows, tolerance):
    rule = Rule(risk_tolerance=tolerance, bound=bound, confidence=0.999)
    column = torch.tensor(rows, dtype=torch.float64) ** 4
    needed = rule.units_for(column)
    if bound == "mean" and needed is not None:
        risk = float(column.mean())
        assert not rule.fails(torch.full((needed,), risk, dtype=torch.float64))
        assert needed <= 1 or rule.fails(torch.full((needed - 1,), risk, dtype=torch.float64))
    if needed is None:
        # No number does: not even very many units with these losses.
        assert rule.fails(column.repeat(200))
    elif not rule.fails(column):
        assert needed <= len(column)
    else:
        assert needed > len(column)
