"""Which shift is chosen, and what is said of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planted_risks import curve_of, planted
from torchcram.calibration.choice import choose_shift
from torchcram.calibration.rule import Rule


@pytest.mark.parametrize("bound", ["mean", "betting"])
@given(
    rows=st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=50, max_size=60),
    tolerance=st.floats(0.05, 0.9),
)
def test_the_choice_is_the_most_skipping_shift_within_the_bound(bound, rows, tolerance):
    losses = torch.tensor(rows, dtype=torch.float64).cummax(1).values
    losses[:, 0] = 0.0
    rule, shifts = Rule(risk_tolerance=tolerance, bound=bound), (3.0, 2.0, 1.0, 0.0)
    chosen = choose_shift(curve_of(losses, shifts), rule)
    column = shifts.index(chosen.threshold_shift)
    assert chosen.certified
    assert [rule.fails(losses[:, index]) for index in range(4)] == [False] * (column + 1) + [True] * (
        3 - column
    )
    assert chosen.empirical_risk == pytest.approx(float(losses[:, column].mean()))
    assert chosen.next_shift == (None if column == 3 else shifts[column + 1])


def test_a_looser_tolerance_never_skips_less():
    curve = planted(300, seed=1)
    chosen = [
        choose_shift(curve, Rule(risk_tolerance=tolerance))
        for tolerance in (0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
    ]
    shifts = [choice.threshold_shift for choice in chosen]
    assert shifts == sorted(shifts, reverse=True)
    assert len(set(shifts)) > 2
    skipped = [choice.skipped_share for choice in chosen]
    assert skipped == sorted(skipped)


def test_where_no_shift_is_good_the_most_cautious_one_is_taken_and_its_risk_told():
    chosen = choose_shift(
        curve_of(torch.ones(30, 2), (2.0, 1.0)), Rule(risk_tolerance=0.1), reference="labels"
    )
    assert not chosen.certified
    assert (chosen.threshold_shift, chosen.empirical_risk, chosen.reference) == (2.0, 1.0, "labels")
    assert (chosen.next_shift, chosen.next_risk, chosen.further_sequences) == (2.0, 1.0, None)


def test_it_tells_how_many_more_sequences_would_allow_a_step_further():
    losses = torch.zeros(260, 3)
    losses[:, 1], losses[:, 2] = 0.0015, 0.01
    curve, rule = curve_of(losses, (9.0, 1.5, 1.0)), Rule(risk_tolerance=0.005)
    chosen = choose_shift(curve, rule)
    assert (chosen.threshold_shift, chosen.next_shift, chosen.further_sequences) == (9.0, 1.5, 25)
    # It is the least number with which calibration itself would choose that threshold.
    for count, shift in ((284, 9.0), (285, 1.5)):
        assert choose_shift(curve.rows(torch.arange(count) % 260), rule).threshold_shift == shift
    # A risk above the tolerance is never certified.
    assert choose_shift(curve.rows(torch.arange(285) % 260), rule).further_sequences is None


def test_too_few_sequences_are_refused():
    with pytest.raises(ValueError, match=r"8 calibration sequences cannot certify a risk of 0\.1"):
        choose_shift(curve_of(torch.zeros(8, 2), (1.0, 0.0)), Rule(risk_tolerance=0.1))


def test_the_curve_that_is_told_keeps_the_points_where_something_changes():
    losses = torch.zeros(20, 8)
    losses[:, 6:] = 0.01
    skipped = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5]).expand(20, 8)
    shifts = tuple(float(8 - index) for index in range(8))
    chosen = choose_shift(curve_of(losses, shifts, skipped), Rule(risk_tolerance=0.5))
    assert chosen.threshold_shift == 1.0
    assert [point[0] for point in chosen.curve] == [8.0, 6.0, 5.0, 3.0, 2.0, 1.0]
    assert chosen.curve[2] == (5.0, 0.0, pytest.approx(0.5))
    assert chosen.confidence is None
    assert chosen.read_rate == pytest.approx(0.5)
