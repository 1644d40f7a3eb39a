"""Budgets of a language model: kept in prompt and continuation, the same with a cache and without,
restored when they end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from tiny_language_models import PAD, language_model, left_padded, tokens
from torchcram.memory.budget import allowance
from torchcram.models.cache import read_meter
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.models.read_budget import control_within
from torchcram.types import ReadBudget, Route, RoutingControl

BUDGETS = {"ratio": 0.15, "tokens": 2, "none": 0, "all": 1.0}


@pytest.fixture
def cram() -> CRAMForCausalLM:
    return language_model()


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_a_budget_is_never_exceeded_in_any_layer_at_any_token(cram, budget):
    """Padding earns nothing; prompt and continuation share one budget; without a cache the same tokens
    read."""
    ids, mask = left_padded(tokens(3, 12), [12, 7, 3])
    cache = DynamicCache(config=cram.config)
    with cram.set_read_budget(budget):
        whole = cram(ids, attention_mask=mask, output_routing=True)
        found = [
            cram(ids[:, :5], attention_mask=mask[:, :5], past_key_values=cache),
            cram(ids[:, 5:], attention_mask=mask, past_key_values=cache),
        ]
    torch.testing.assert_close(
        torch.cat([part.logits for part in found], 1)[mask.bool()],
        whole.logits[mask.bool()],
        rtol=1e-9,
        atol=1e-9,
    )
    bound = allowance(
        ReadBudget(tokens=budget) if isinstance(budget, int) else ReadBudget(ratio=budget), mask.cumsum(1)
    )
    for routes in whole.routes:
        assert ((routes == Route.EPISODIC).cumsum(1) <= bound).all()
    assert (
        torch.stack([(routes == Route.EPISODIC).sum(1) for routes in whole.routes])
        == read_meter(cache).reads.T
    ).all()


def test_generate_keeps_a_budget_for_one_call(cram):
    cache, free = DynamicCache(config=cram.config), DynamicCache(config=cram.config)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": PAD}
    cram.generate(tokens(), past_key_values=cache, read_budget=1, **options)
    assert read_meter(cache).reads.max() == 1
    cram.generate(tokens(), past_key_values=free, **options)
    assert read_meter(free).reads.max() > 1


def test_the_former_budget_is_restored_even_after_an_error(cram):
    cram.set_read_budget(0.5)
    restoration = cram.set_read_budget(3)
    assert cram.read_budget == ReadBudget(tokens=3)
    with pytest.raises(KeyError), restoration:
        raise KeyError
    assert cram.read_budget == ReadBudget(ratio=0.5)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        cram.set_read_budget(7.0)
    assert cram.read_budget == ReadBudget(ratio=0.5)
    cram.set_read_budget(None)
    assert cram.read_budget is None


def test_a_risk_tolerance_needs_a_calibration_and_then_moves_the_thresholds(cram):
    with pytest.raises(
        ValueError, match=r"risk_tolerance 0.3 needs a calibration: call model.calibrate_reads"
    ):
        cram.set_read_budget(ReadBudget(risk_tolerance=0.3))
    ids, mask = left_padded(tokens(4, 12), [12, 12, 9, 5])
    cram.train()
    curve = cram.calibrate_reads(
        [{"input_ids": ids, "attention_mask": mask}, tokens(8, 12, seed=4)], largest_tolerance=1.0
    )
    assert cram.training
    cram.eval()
    assert curve.losses.shape == (12, len(curve.shifts))
    assert not curve.losses[:, 0].any()
    assert (curve.losses.diff(dim=1) >= 0).all()
    assert (curve.skipped[:, 0] <= curve.skipped[:, -1]).all()
    assert torch.allclose(curve.reads, 1 - curve.skipped)
    rates = []
    for tolerance in (0.1, 0.99):
        with cram.set_read_budget(ReadBudget(risk_tolerance=tolerance)):
            rates.append(cram(tokens(4, 12, seed=9), output_routing=True).read_rates.mean())
    assert rates[1] < rates[0] <= 1
    # Even where all else changes every prediction, the most cautious threshold changes none.
    losses = torch.ones_like(curve.losses).index_fill(1, torch.tensor([0]), 0.0)
    within = control_within(ReadBudget(risk_tolerance=0.3), RoutingControl(), replace(curve, losses=losses))
    assert (within.reads, within.threshold_shift) == ("routed", curve.shifts[0])
    with pytest.raises(ValueError, match=r"12 calibration sequences cannot certify a risk of 0\.01"):
        cram.set_read_budget(ReadBudget(risk_tolerance=0.01))


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ("transformer", "TransformerBlock has no router that could keep a read budget"),
        ("cram_paper", "quality 'observed' needs the reads"),
    ],
)
def test_budgets_are_refused_where_they_could_not_be_kept(mixer, message):
    with pytest.raises(ValueError, match=message):
        language_model(mixer).set_read_budget(0.1)


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        (np.int64(1), ReadBudget(tokens=1)),
        (np.uint8(7), ReadBudget(tokens=7)),
        (np.float32(0.5), ReadBudget(ratio=0.5)),
        (1.0, ReadBudget(ratio=1.0)),
    ],
)
def test_numbers_of_numpy_are_numbers(cram, given, budget):
    cram.set_read_budget(given)
    assert cram.read_budget == budget
    rates = cram(tokens(), output_routing=True).read_rates
    assert torch.equal(cram(tokens(), read_budget=given, output_routing=True).read_rates, rates)


@pytest.mark.parametrize(
    "given", [True, np.bool_(True), torch.tensor(3), np.array([1, 2]), float("nan"), np.inf]
)
def test_what_is_no_number_is_no_budget(cram, given):
    with pytest.raises(ValueError, match=r"read_budget .* is neither a ratio"):
        cram.set_read_budget(given)
    with pytest.raises(ValueError, match=r"read_budget .* is neither a ratio"):
        cram(tokens(), read_budget=given)


def test_a_risk_tolerance_is_kept_on_the_documents_themselves(cram):
    """Predictions differ from those of the most cautious threshold no more often than is told."""
    documents = tokens(30, 12, seed=4)
    curve = cram.calibrate_reads([documents[:16], documents[16:]], largest_tolerance=0.9)
    silent = cram.model(documents, control=RoutingControl(threshold_shift=curve.shifts[0]))
    before = cram.lm_head(silent.last_hidden_state).argmax(-1)
    for tolerance in (0.05, 0.2, 0.6):
        with cram.set_read_budget(ReadBudget(risk_tolerance=tolerance)):
            changed = cram(documents).logits.argmax(-1) != before
        assert changed.double().mean() <= tolerance


def test_thresholds_beyond_the_largest_tolerance_are_not_measured(cram):
    whole = cram.calibrate_reads([tokens(8, 12)], largest_tolerance=1.0)
    short = cram.calibrate_reads([tokens(8, 12)], largest_tolerance=0.1)
    assert len(short.shifts) < len(whole.shifts)
    assert short.losses[:, -1].mean() > 0.1 >= short.losses[:, -2].mean()
    assert torch.equal(short.losses, whole.losses[:, : len(short.shifts)])
    with pytest.raises(ValueError, match=r"largest_tolerance 0 must lie in \(0, 1\]"):
        cram.calibrate_reads([tokens()], largest_tolerance=0)


def test_a_model_without_a_threshold_cannot_be_calibrated():
    with pytest.raises(ValueError, match="no layer of this model predicts familiarity, so there is no"):
        language_model("cram_no_consolidation").calibrate_reads([tokens()])


def test_what_are_no_documents_is_refused(cram):
    with pytest.raises(ValueError, match="there are no documents to calibrate on"):
        cram.calibrate_reads([])
    assert cram.risk_curve is None
