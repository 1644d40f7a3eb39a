"""The thresholds of real models: measured, certified against either reference, and moved."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from tiny_runs import Echo, Sums
from torchcram.calibration.curve import Judgement, risk_curve, shift_grid
from torchcram.calibration.rule import Rule
from torchcram.models.sequence import SequenceModel
from torchcram.tasks.base import Floors, skippable_steps
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training import thresholds
from torchcram.training.evaluate import evaluation_batch
from torchcram.training.thresholds import (
    apply_shift,
    calibrate,
    fresh_batches,
    fresh_floor,
    fresh_risk_curve,
    sequence_judge,
    study_guarantee,
    thresholds_of,
)
from torchcram.types import RoutingControl

FRESH = {"seed": 1, "step": 0}
HALF = Rule(risk_tolerance=0.5)


@pytest.fixture
def task() -> SRCD:
    return SRCD(SRCDConfig(length=40, patterns=6, key_size=4, values=4))


def lively(task, layers: int = 1, **options) -> SequenceModel:
    """A model whose familiarity differs from token to token, and whose semantic answers matter."""
    model = SequenceModel(
        task.heads,
        input_size=task.input_size,
        vocabulary=getattr(task, "vocabulary", None),
        d_model=16,
        layers=layers,
        options={"slots": 16, "state_size": 8} | options,
    ).eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.familiarity.net[0].weight, std=0.5)
        torch.nn.init.normal_(block.familiarity.net[2].weight, std=2.0)
        torch.nn.init.normal_(block.semantic.values)
    return model


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of a quarter of the shifts: every one that makes a difference is a pass of the model."""
    monkeypatch.setattr(thresholds, "shift_grid", partial(shift_grid, resolution=0.5))


@pytest.fixture
def model(task) -> SequenceModel:
    return lively(task)


def test_at_the_most_cautious_shift_nothing_is_skipped_and_nothing_lost(model, task):
    curve = fresh_risk_curve(model, task, sequences=8, **FRESH)
    assert curve.losses.shape == (8, len(shift_grid(thresholds_of(model))))
    assert not curve.losses[:, 0].any()
    assert not curve.skipped[:, 0].nan_to_num().any()
    assert curve.reads[:, 0].min() > 0.9, "an untrained router thinks that nearly every token is in need"
    # Losses and skipping rise as the shift falls.
    assert (curve.losses.diff(dim=1) >= 0).all()
    assert (curve.skipped.nanmean(0).diff() >= -1e-6).all()
    assert curve.losses[:, -1].mean() > 0.1
    assert curve.skipped.nanmean(0)[-1] == 1


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reference", ["cautious", "labels"])
@pytest.mark.parametrize("options", [{}, {"router": "gumbel3"}, {"window": 3}], ids=str)
def test_the_search_finds_what_passes_at_every_shift_would(task, reference, options):
    model, units = lively(task, layers=2, **options).double(), 8
    batch, head = evaluation_batch(task, sequences=units, seed=3, index=0, step=0).double(), task.heads[0]
    shifts = shift_grid(thresholds_of(model), resolution=0.5)
    judge = sequence_judge(
        model,
        batch,
        head,
        skippable=skippable_steps(task, batch),
        most_cautious=shifts[0],
        reference=reference,
    )
    asked = []

    def counted(shift: float, units: torch.Tensor) -> Judgement:
        asked.append(len(units))
        return judge(shift, units)

    curve, every = risk_curve(counted, units=units, shifts=shifts), torch.arange(units)
    columns = [judge(shift, every) for shift in shifts]
    assert torch.equal(curve.losses, torch.stack([one.losses for one in columns], 1).cummax(1).values)
    for name in ("skipped", "reads"):
        whole = torch.stack([getattr(one, name) for one in columns], 1)
        torch.testing.assert_close(getattr(curve, name), whole, equal_nan=True)
    assert len({one.routes for one in columns}) > 3
    assert sum(asked) < units * len(shifts)


@pytest.mark.slow
@pytest.mark.usefixtures("coarse")
def test_something_is_always_certified_against_the_cautious_reference(task):
    """Semantic answers of an untrained model are noise; dense reads are not what it was routed with."""
    model = lively(task, layers=2)
    chosen = calibrate(model, task, Rule(risk_tolerance=0.1), sequences=9, **FRESH)
    assert chosen.certified
    assert (chosen.empirical_risk, chosen.skipped_share) == (0.0, 0.0)
    loose = calibrate(model, task, HALF, sequences=9, **FRESH)
    assert loose.threshold_shift < chosen.threshold_shift
    assert loose.skipped_share > 0
    assert (loose.sequences, loose.reference) == (9, "cautious")


def test_against_labels_the_loss_is_the_share_of_wrong_answers(model, task):
    rule, most_cautious = Rule(risk_tolerance=0.05), shift_grid(thresholds_of(model))[0]
    chosen = calibrate(model, task, rule, sequences=20, batch_size=20, reference="labels", **FRESH)
    (batch,) = fresh_batches(task, sequences=20, batch_size=20, **FRESH)
    control = RoutingControl(threshold_shift=most_cautious)
    with torch.no_grad():
        answer = model(batch, control=control).outputs["answer"].argmax(-1)
    wrong = (answer != batch.targets["answer"]) & batch.slices["query"]
    assert chosen.empirical_risk == pytest.approx(float(wrong.sum() / batch.slices["query"].sum()))
    assert chosen.empirical_risk > 0.05
    assert (chosen.certified, chosen.threshold_shift, chosen.reference) == (False, most_cautious, "labels")


@pytest.mark.slow
@pytest.mark.usefixtures("coarse")
def test_where_the_thresholds_stand_does_not_change_what_is_chosen(model, task):
    first = calibrate(model, task, HALF, sequences=3, **FRESH)
    before = thresholds_of(model)[0]
    apply_shift(model, first.threshold_shift)
    again = calibrate(model, task, HALF, sequences=3, **FRESH)
    assert again.threshold_shift == pytest.approx(0.0, abs=1e-5)
    assert again.skipped_share == first.skipped_share
    apply_shift(model, shift_grid(thresholds_of(model))[0])
    last = calibrate(model, task, HALF, sequences=3, **FRESH)
    assert thresholds_of(model)[0] + last.threshold_shift == pytest.approx(before + first.threshold_shift)


@pytest.mark.usefixtures("coarse")
def test_a_head_per_sequence_can_be_watched():
    class Watched(Sums):
        calibrated_head = "positive"

    model = lively(Watched())
    curve = fresh_risk_curve(model, Watched(), sequences=8, **FRESH)
    assert set(curve.losses.unique().tolist()) == {0.0, 1.0}
    assert curve.skipped[:, 0].abs().max() == 0
    assert curve.skipped.mean(0)[-1] > 0.9
    chosen = calibrate(model, Watched(), HALF, sequences=8, **FRESH)
    assert chosen.certified


def test_a_task_without_skippable_slice_counts_scored_steps():
    class Watched(Echo):
        calibrated_head = "before"

    curve = fresh_risk_curve(lively(Watched()), Watched(), sequences=6, batch_size=4, **FRESH)
    assert curve.skipped.nanmean(0)[-1] == 1
    assert curve.losses[:, -1].mean() > 0


def test_sequences_without_scored_answers_lose_nothing(model, task):
    batch = evaluation_batch(task, sequences=4, seed=0, index=0, step=0)
    batch.targets["answer"][0] = -100
    judge = sequence_judge(
        model,
        batch,
        task.heads[0],
        skippable=skippable_steps(task, batch),
        most_cautious=20.0,
        reference="labels",
    )
    curve = risk_curve(judge, units=4, shifts=(20.0, -20.0))
    assert curve.losses[0].tolist() == [0.0, 0.0]
    assert curve.skipped[0].isnan().all()
    assert curve.losses[1:].sum() > 0


def test_as_many_sequences_are_drawn_as_asked_for(task):
    batches = fresh_batches(task, sequences=10, batch_size=4, **FRESH)
    assert [batch.size for batch in batches] == [4, 4, 2]
    floor = fresh_floor(task, batches)
    needed = torch.cat([batch.slices["novel"] for batch in batches])
    assert floor == pytest.approx(float(needed.double().mean()))
    assert fresh_floor(Sums(), fresh_batches(Sums(), sequences=3, **FRESH)) is None


def test_padding_is_no_part_of_a_floor():
    class Reading(Sums):
        def oracle(self, batch):
            return Floors(needs_read=torch.ones_like(batch.mask))

    assert fresh_floor(Reading(), fresh_batches(Reading(), sequences=5, **FRESH)) == 1.0


def test_what_cannot_be_calibrated_is_said_before_anything_is_drawn(model, task):
    class Undrawn(SRCD):
        def batch(self, *arguments, **options):
            raise AssertionError

    undrawn = Undrawn(task.config)
    with pytest.raises(
        ValueError, match=r"8 calibration sequences cannot certify a risk of 0\.1: at least 9 are needed"
    ):
        calibrate(model, undrawn, Rule(risk_tolerance=0.1), sequences=8, **FRESH)
    with pytest.raises(ValueError, match=r"8 calibration sequences cannot certify a risk of 0\.1"):
        study_guarantee(
            model,
            undrawn,
            [HALF, Rule(risk_tolerance=0.1)],
            sequences=8,
            test_sequences=8,
            splits=2,
            **FRESH,
        )
    blind = SequenceModel(task.heads, input_size=task.input_size, d_model=16, mixer="ssm")
    with pytest.raises(ValueError, match="no layer of this model predicts familiarity, so there is no"):
        fresh_risk_curve(blind, undrawn, sequences=2, **FRESH)
    undrawn.calibrated_head = None
    with pytest.raises(ValueError, match="Undrawn does not say whose answers calibration should watch"):
        fresh_risk_curve(model, undrawn, sequences=2, **FRESH)


@pytest.mark.slow
@pytest.mark.usefixtures("coarse")
def test_a_study_tells_risk_reads_and_floor(task):
    strict, loose = study_guarantee(
        lively(task, layers=2),
        task,
        [Rule(risk_tolerance=0.1), HALF],
        sequences=9,
        test_sequences=6,
        splits=6,
        **FRESH,
    )
    assert (strict.certified_share, strict.mean_skipped) == (0.0, 0.0)
    assert strict.mean_risk <= 0.1
    assert loose.certified
    assert 0 < loose.mean_risk < 0.5
    assert loose.holds
    assert loose.read_rate < strict.read_rate
    assert loose.reads_over_floor == pytest.approx(loose.read_rate / loose.floor)
    assert loose.floor == fresh_floor(task, fresh_batches(task, sequences=15, **FRESH))


@pytest.mark.usefixtures("coarse")
def test_the_risk_of_a_choice_is_what_the_model_does_at_that_shift(model, task):
    """On the calibration sequences themselves: answers that differ, and reads, by an evaluation."""
    chosen = calibrate(model, task, HALF, sequences=8, **FRESH)
    (batch,) = fresh_batches(task, sequences=8, **FRESH)
    silent = RoutingControl(threshold_shift=shift_grid(thresholds_of(model))[0])
    with torch.no_grad():
        outputs = [
            model(batch, control=control)
            for control in (silent, replace(silent, threshold_shift=chosen.threshold_shift))
        ]
    answers = [output.outputs["answer"].argmax(-1) for output in outputs]
    changed = ((answers[0] != answers[1]) & batch.slices["query"]).sum(1) / batch.slices["query"].sum(1)
    # Losses are made monotone: they can be no smaller than what the model does there.
    assert chosen.empirical_risk >= float(changed.mean()) - 1e-6
    assert chosen.empirical_risk <= 0.5
    read = torch.stack([block.decision.read for block in outputs[1].blocks]).any(0)
    assert chosen.read_rate == pytest.approx(float(read.double().mean()))


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
    assert thresholds_of(model) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("seed", [0, 1, 1073, 1074, 2147, 4294, 10_007, 2**31])
def test_calibration_and_evaluation_draw_apart(task, seed):
    calibration = fresh_batches(task, sequences=8, seed=seed, step=0)[0]
    evaluation = evaluation_batch(task, sequences=8, seed=seed, index=0, step=0)
    assert not torch.equal(calibration.inputs, evaluation.inputs)
