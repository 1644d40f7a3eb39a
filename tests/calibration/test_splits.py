"""The guarantee over random splits, on losses whose truth is known."""

import math
from dataclasses import replace

import pytest
import torch

from planted_risks import SHIFTS, ToyModel, curve_of, planted
from torchcram.calibration.choice import choose_shift
from torchcram.calibration.curve import risk_curve
from torchcram.calibration.rule import Rule
from torchcram.calibration.splits import draw_splits, none_certifies, split_study


def orders(units: int, *, calibration: int, splits: int = 200):
    return draw_splits(
        units, calibration=calibration, splits=splits, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("bound", ["mean", "betting"])
@pytest.mark.parametrize("tolerance", [0.01, 0.05])
@pytest.mark.parametrize("spread", [0.2, 1.0, 4.0])
def test_the_realised_risk_keeps_the_tolerance_over_200_splits(bound, tolerance, spread):
    """n = 250 for calibration, fresh sequences for the test: the mean risk is at most the tolerance, within
    two standard errors; by betting, the risk of at most a tenth of the splits is above it."""
    risks, rule = [], Rule(risk_tolerance=tolerance, bound=bound)
    for split in range(200):
        curve = planted(850, seed=split, spread=spread)
        chosen = choose_shift(curve.rows(torch.arange(250)), rule)
        risks.append(float(curve.losses[250:, SHIFTS.index(chosen.threshold_shift)].mean()))
    risk = torch.tensor(risks, dtype=torch.float64)
    assert risk.mean() <= tolerance + 2 * risk.std() / math.sqrt(200)
    if bound == "betting":
        assert (risk > tolerance).double().mean() <= 0.1 + 5 * (0.09 / 200) ** 0.5
    else:
        # It is no guarantee of doing nothing: the next shift would break it in most splits.
        assert risk.mean() > tolerance / 20


@pytest.mark.parametrize("bound", ["mean", "betting"])
@pytest.mark.parametrize("tolerance", [0.015, 0.05])
def test_a_study_of_splits_says_that_the_guarantee_holds(bound, tolerance):
    study = split_study(
        planted(600, seed=3),
        Rule(risk_tolerance=tolerance, bound=bound),
        orders(600, calibration=200),
        calibration=200,
        floor=0.25,
    )
    assert study.holds
    assert study.mean_risk <= tolerance + 2 * study.standard_error
    assert (study.calibration_sequences, study.test_sequences, study.splits) == (200, 400, 200)
    assert 0 < study.mean_skipped < 1
    assert study.certified
    assert study.certified_share == 1
    assert study.reads_over_floor == pytest.approx((1 - study.mean_skipped) / 0.25, rel=1e-5)
    assert study.confidence == (None if bound == "mean" else 0.9)
    assert study.exceeded_share <= 0.5


def test_betting_keeps_more_distance_than_the_mean():
    studies = [
        split_study(
            planted(600, seed=3),
            Rule(risk_tolerance=0.05, bound=bound),
            orders(600, calibration=200),
            calibration=200,
        )
        for bound in ("mean", "betting")
    ]
    assert studies[1].mean_risk < studies[0].mean_risk
    assert studies[1].exceeded_share <= studies[0].exceeded_share
    assert studies[0].floor is studies[0].reads_over_floor is None


def test_a_study_tells_where_nothing_that_skips_was_certified():
    losses = torch.zeros(300, 2)
    losses[:, 1] = (torch.arange(300) % 10 == 0).float()
    skipped = torch.tensor([0.0, 0.9]).expand(300, 2)
    study = split_study(
        curve_of(losses, (1.0, 0.0), skipped),
        Rule(risk_tolerance=0.105),
        orders(300, calibration=100, splits=50),
        calibration=100,
    )
    assert 0 < study.certified_share < 1
    assert not study.certified
    assert study.mean_skipped == pytest.approx(0.9 * study.certified_share)


def test_a_study_notices_a_broken_guarantee():
    study = split_study(
        planted(600, seed=3),
        Rule(risk_tolerance=0.05),
        orders(600, calibration=200, splits=4),
        calibration=200,
    )
    assert study.holds
    assert not replace(study, mean_risk=0.06, standard_error=0.001).holds


def test_a_curve_that_ends_where_no_split_certifies_is_long_enough():
    rule, splits = Rule(risk_tolerance=0.2), orders(60, calibration=20, splits=10)
    short, whole = (
        risk_curve(ToyModel(60, tokens=3, seed=5), units=60, shifts=SHIFTS, **fails)
        for fails in ({"fails": none_certifies(rule, splits, calibration=20)}, {})
    )
    assert len(short.shifts) < len(whole.shifts)
    assert split_study(short, rule, splits, calibration=20) == split_study(
        whole, rule, splits, calibration=20
    )


def test_each_part_of_a_split_has_its_own_use():
    """The first units lose something where reads are skipped, the others do not."""
    losses = torch.zeros(60, 2)
    losses[:30, 1] = 1.0
    skipped = torch.tensor([0.0, 0.9]).expand(60, 2)
    curve, rule, order = curve_of(losses, (1.0, 0.0), skipped), Rule(risk_tolerance=0.1), torch.arange(60)
    cautious, bold = (split_study(curve, rule, one[None], calibration=30) for one in (order, order.flip(0)))
    assert (cautious.certified, cautious.mean_risk, cautious.mean_skipped) == (False, 0.0, 0.0)
    assert (bold.certified, bold.mean_risk, bold.exceeded_share) == (True, 1.0, 1.0)
    assert bold.mean_skipped == pytest.approx(0.9)
    assert not bold.holds
    # One of the two splits certifies the second shift: the curve must not end before it.
    orders_of_both = torch.stack([order, order.flip(0)])
    assert not none_certifies(rule, orders_of_both, calibration=30)(losses[:, 1])
    assert none_certifies(rule, order[None], calibration=30)(losses[:, 1])


def test_nothing_left_to_test_on_is_an_error():
    with pytest.raises(
        ValueError, match="200 calibration sequences leave nothing to test on: 200 were measured"
    ):
        orders(200, calibration=200)


def test_too_few_sequences_for_the_tolerance_are_an_error():
    with pytest.raises(ValueError, match=r"20 calibration sequences cannot certify a risk of 0\.01"):
        split_study(
            planted(60, seed=0),
            Rule(risk_tolerance=0.01),
            orders(60, calibration=20, splits=2),
            calibration=20,
        )
