"""The conformal guarantee on losses planted so that the truth is known, and the risk curve of real models."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcram.calibration import (
    RiskCurve,
    apply_shift,
    check_sequences,
    choose_shift,
    risk_curve,
    split_study,
)
from torchcram.models.sequence import SequenceModel
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training.evaluate import evaluation_batch
from torchcram.types import RoutingControl

# A finer grid than the library's, so that the choice is limited by the bound and not by the grid.
SHIFTS = tuple(float(shift) for shift in torch.linspace(8.0, -8.0, 65))


def planted(sequences: int, *, seed: int, harm: float = 0.12, spread: float = 1.0) -> RiskCurve:
    """Each sequence loses answers once the shift falls below a bound of its own; skipping rises as the
    shift falls. Nothing is lost at the first shift."""
    generator = torch.Generator().manual_seed(seed)
    bound = spread * torch.randn(sequences, 1, generator=generator) - 0.5
    severity = torch.rand(sequences, 1, generator=generator)
    shifts = torch.tensor(SHIFTS)
    losses = (severity * harm * (1 + (bound - shifts).clamp_min(0))).clamp_max(1.0) * (shifts < bound)
    losses[:, 0] = 0.0
    skipped = torch.sigmoid(2 * (1 - shifts)).expand(sequences, -1)
    return RiskCurve(shifts=SHIFTS, losses=losses.cummax(1).values, skipped=skipped)


@pytest.mark.parametrize("tolerance", [0.01, 0.05])
@pytest.mark.parametrize("spread", [0.2, 1.0, 4.0])
def test_the_realised_risk_keeps_the_tolerance_over_200_splits(tolerance, spread):
    """n = 200 for calibration, fresh sequences for the test: the mean risk is at most the tolerance,
    within two standard errors."""
    risks = []
    for split in range(200):
        curve = planted(800, seed=split, spread=spread)
        chosen = choose_shift(curve.rows(torch.arange(200)), risk_tolerance=tolerance)
        risks.append(float(curve.losses[200:, SHIFTS.index(chosen.threshold_shift)].mean()))
    risk = torch.tensor(risks, dtype=torch.float64)
    assert risk.mean() <= tolerance + 2 * risk.std() / math.sqrt(200)
    # It is no guarantee of doing nothing: the next shift would break it in most splits.
    assert risk.mean() > tolerance / 20


@pytest.mark.parametrize("tolerance", [0.01, 0.05])
def test_a_study_of_splits_says_that_the_guarantee_holds(tolerance):
    study = split_study(
        planted(600, seed=3),
        calibration_sequences=200,
        risk_tolerance=tolerance,
        splits=200,
        generator=torch.Generator().manual_seed(0),
    )
    assert study.holds
    assert study.mean_risk <= tolerance + 2 * study.standard_error
    assert (study.calibration_sequences, study.test_sequences, study.splits) == (200, 400, 200)
    assert 0 < study.mean_skipped < 1


def test_a_study_notices_a_broken_guarantee():
    """Sequences that lose nothing when calibrated and all when tested are not exchangeable: here by
    choosing without the correction."""
    losses = torch.zeros(300, 2)
    losses[:, 1] = (torch.arange(300) % 10 == 0).float()
    curve = RiskCurve(shifts=(1.0, 0.0), losses=losses, skipped=torch.zeros(300, 2))
    held = split_study(
        curve,
        calibration_sequences=100,
        risk_tolerance=0.09,
        splits=50,
        generator=torch.Generator().manual_seed(0),
    )
    assert held.holds
    broken = type(held)(**{**vars(held), "mean_risk": 0.1, "standard_error": 0.001})
    assert not broken.holds


def test_nothing_left_to_test_on_is_an_error():
    with pytest.raises(
        ValueError, match="200 calibration sequences leave nothing to test on: 200 were measured"
    ):
        split_study(
            planted(200, seed=0),
            calibration_sequences=200,
            risk_tolerance=0.05,
            splits=2,
            generator=torch.Generator(),
        )


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=20, max_size=30),
    st.floats(0.05, 0.9),
)
def test_the_choice_is_the_most_skipping_shift_within_the_bound(rows, tolerance):
    losses = torch.tensor(rows, dtype=torch.float64).cummax(1).values
    losses[:, 0] = 0.0
    curve = RiskCurve(shifts=(3.0, 2.0, 1.0, 0.0), losses=losses, skipped=torch.zeros_like(losses))
    chosen = choose_shift(curve, risk_tolerance=tolerance)
    n, column = len(rows), curve.shifts.index(chosen.threshold_shift)
    bounds = [(n * float(losses[:, index].mean()) + 1) / (n + 1) for index in range(4)]
    assert bounds[column] <= tolerance
    assert all(bound > tolerance for bound in bounds[column + 1 :])
    assert chosen.empirical_risk == pytest.approx(float(losses[:, column].mean()))


def test_a_looser_tolerance_never_skips_less():
    curve = planted(300, seed=1)
    chosen = [
        choose_shift(curve, risk_tolerance=tolerance) for tolerance in (0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
    ]
    shifts = [choice.threshold_shift for choice in chosen]
    assert shifts == sorted(shifts, reverse=True)
    assert len(set(shifts)) > 2
    skipped = [choice.skipped_share for choice in chosen]
    assert skipped == sorted(skipped)


def test_where_no_shift_is_good_the_most_cautious_one_is_taken_and_its_risk_told():
    curve = RiskCurve(shifts=(2.0, 1.0), losses=torch.ones(30, 2), skipped=torch.zeros(30, 2))
    chosen = choose_shift(curve, risk_tolerance=0.1)
    assert (chosen.threshold_shift, chosen.empirical_risk) == (2.0, 1.0)


@pytest.mark.parametrize(("tolerance", "needed"), [(0.05, 19), (0.01, 99), (0.005, 199), (0.3, 3), (0.5, 1)])
def test_too_few_sequences_are_refused_by_the_exact_number(tolerance, needed):
    check_sequences(needed, risk_tolerance=tolerance)
    with pytest.raises(
        ValueError,
        match=(
            rf"{needed - 1} calibration sequences cannot certify a risk of {tolerance}: at least "
            rf"{needed} are needed"
        ),
    ):
        check_sequences(needed - 1, risk_tolerance=tolerance)
    # As many as needed certify a model that never loses; one fewer would not, whatever the model does.
    perfect = RiskCurve(shifts=(1.0, 0.0), losses=torch.zeros(needed, 2), skipped=torch.ones(needed, 2))
    assert choose_shift(perfect, risk_tolerance=tolerance).threshold_shift == 0.0
    assert 1 / needed > tolerance


@pytest.fixture
def task() -> SRCD:
    return SRCD(SRCDConfig(length=40, patterns=6, key_size=4, values=4))


@pytest.fixture
def model(task) -> SequenceModel:
    model = SequenceModel(
        task.heads, input_size=task.input_size, d_model=16, layers=2, options={"slots": 16, "state_size": 8}
    ).eval()
    # A familiarity that differs from token to token, so that shifts matter.
    for block in model.blocks:
        torch.nn.init.normal_(block.familiarity.net[0].weight, std=0.5)
        torch.nn.init.normal_(block.familiarity.net[2].weight, std=2.0)
        torch.nn.init.normal_(block.semantic.values)
    return model


def test_losses_and_skipping_rise_as_the_shift_falls(model, task):
    batches = [evaluation_batch(task, sequences=16, seed=0, index=index, step=0) for index in range(4)]
    curve = risk_curve(model, batches, shifts=(0.0, 4.0, -4.0, 30.0))
    assert curve.shifts == (30.0, 4.0, 0.0, -4.0)
    assert curve.losses.shape == curve.skipped.shape == (64, 4)
    assert (curve.losses.diff(dim=1) >= 0).all()
    assert (curve.skipped.nanmean(0).diff() >= 0).all()
    assert curve.losses.mean(0)[-1] > 0
    # At a shift beyond all familiarity nothing is skipped, and nothing lost.
    assert curve.losses[:, 0].abs().max() == 0
    assert curve.skipped[:, 0].nan_to_num().max() == 0


def test_shifts_that_no_choice_can_fall_on_are_left_out(model, task):
    """The curve stops behind the first shift that breaks the tolerance, and the choice is that of the
    whole curve."""
    batches, shifts = (
        [evaluation_batch(task, sequences=96, seed=0, index=0, step=0)],
        (30.0, 2.0, 1.0, 0.0, -1.0, -2.0, -4.0),
    )
    whole = risk_curve(model, batches, shifts=shifts)
    means = whole.losses.double().mean(0).tolist()
    tolerance = next(mean for mean in means if mean > 0) + 1e-9
    short = risk_curve(model, batches, shifts=shifts, most=tolerance)
    assert len(short.shifts) == 1 + next(
        (i for i, mean in enumerate(means) if mean > tolerance), len(means) - 1
    )
    assert torch.equal(short.losses, whole.losses[:, : len(short.shifts)])
    chosen = [
        choose_shift(curve, risk_tolerance=max(tolerance, 0.2)).threshold_shift
        for curve in (whole, risk_curve(model, batches, shifts=shifts, most=0.2))
    ]
    assert chosen[0] == chosen[1]


def test_sequences_without_scored_answers_lose_nothing(model, task):
    batch = evaluation_batch(task, sequences=4, seed=0, index=0, step=0)
    batch.targets["answer"][0] = -100
    curve = risk_curve(model, [batch], shifts=(4.0, -4.0))
    assert curve.losses[0].tolist() == [0.0, 0.0]
    assert curve.skipped[0].isnan().all()
    assert not choose_shift(curve, risk_tolerance=0.9).empirical_risk > 1


def test_applying_a_shift_is_deciding_with_it(model, task):
    batch = evaluation_batch(task, sequences=16, seed=0, index=0, step=0)
    with torch.no_grad():
        asked = model(batch, control=RoutingControl(threshold_shift=-1.5))
        before = model(batch, control=RoutingControl())
        apply_shift(model, -1.5)
        after = model(batch, control=RoutingControl())
    routes = [
        torch.stack([block.decision.route for block in output.blocks]) for output in (asked, before, after)
    ]
    assert torch.equal(routes[0], routes[2])
    assert not torch.equal(routes[1], routes[2])


def test_a_shift_passes_by_mixers_without_a_router(task):
    model = SequenceModel(task.heads, input_size=task.input_size, d_model=16, mixer="ssm")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    apply_shift(model, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
