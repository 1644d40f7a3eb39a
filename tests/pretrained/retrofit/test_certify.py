"""The certificate: the share of next tokens that differ, kept by choosing a price on documents."""

import json
import math

import pytest
import torch

from retrofitted import make_retrofitted
from tiny_models import random_windows
from torchcram.calibration.rule import Rule
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.certificate import FILE, Certificate, load_certificate
from torchcram.pretrained.retrofit.certify import FREE, DocumentJudge, certify, price_of, prices_to_try
from torchcram.pretrained.retrofit.drift import drift_of, mean_harm
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.judge import Setting, judge
from torchcram.pretrained.sites import find_sites

DOCUMENTS, SELECT = random_windows(12, seed=1, tokens=40), random_windows(3, seed=2, tokens=40)


@pytest.fixture(scope="module")
def layerwise():
    """A model whose routers tell tokens apart."""
    model = make_retrofitted()
    with torch.no_grad():
        for memory in memories(model).values():
            memory.router.outer.weight.mul_(8)
    return Layerwise(model, find_sites(model))


@pytest.fixture(scope="module")
def found(layerwise):
    generator = torch.Generator().manual_seed(0)
    return certify(layerwise, DOCUMENTS, SELECT, risks=(0.4, 0.7), splits=50, generator=generator)


def differing(model, ids, price):
    with torch.no_grad():
        with reading(model, "all"):
            old = model(input_ids=ids[None]).logits[0].argmax(-1)
        with reading(model, price=price):
            return float((model(input_ids=ids[None]).logits[0].argmax(-1) != old).double().mean())


def test_the_risk_is_the_share_of_next_tokens_that_differ(layerwise, found):
    one = found[0.7]
    risks = [differing(layerwise.model, ids, one.price) for ids in DOCUMENTS]
    # A document's loss counts from the first price at which it occurs.
    assert one.risk >= sum(risks) / len(risks) - 1e-9
    assert one.risk == pytest.approx(sum(risks) / len(risks), abs=0.03)
    assert one.risk > 0
    judged = judge(layerwise.model, DOCUMENTS, {"now": Setting(price=one.price)})["now"]
    assert one.reads == pytest.approx(judged.reads)


def test_the_dearest_price_that_keeps_the_rule_is_chosen(found):
    for risk, one in found.items():
        assert one.certified
        assert (one.documents * one.risk + 1) / (one.documents + 1) <= risk
        assert one.next_price is None or one.next_price > one.price
        assert one.next_risk is None or not Rule(risk_tolerance=risk).certifies(
            torch.full((one.documents, 1), one.next_risk)
        )
    assert found[0.4].price < found[0.7].price
    assert found[0.4].reads > found[0.7].reads


def test_the_promise_is_kept_over_splits(found):
    for risk, one in found.items():
        assert one.realised.holds
        assert one.realised.mean_risk <= risk + 2 * one.realised.standard_error
        assert (one.realised.calibration_documents, one.realised.test_documents) == (6, 6)


def test_a_read_that_costs_nothing_is_always_made(layerwise):
    shifts = prices_to_try(layerwise.model, SELECT)
    assert shifts[0] == FREE
    assert price_of(FREE) == 0
    assert list(shifts) == sorted(shifts, reverse=True)
    assert price_of(-math.log(0.25)) == pytest.approx(0.25)
    free = DocumentJudge(layerwise, DOCUMENTS)(FREE, torch.tensor([3, 5]))
    assert free.losses.tolist() == [0, 0]
    assert free.skipped.tolist() == [0, 0]
    assert free.reads.tolist() == pytest.approx([30 / 40] * 2)


def test_too_few_documents_are_told(layerwise):
    with pytest.raises(ValueError, match="at least 19 are needed"):
        certify(layerwise, DOCUMENTS[:11], SELECT, risks=(0.05,))


def test_a_model_that_never_reads_has_no_price():
    model = make_retrofitted(unread=(0, 1))
    with pytest.raises(ValueError, match="no price to certify"):
        prices_to_try(model, SELECT)


def test_text_of_another_kind_voids_it(layerwise, found):
    model, one = layerwise.model, found[0.7]
    assert one.harms == pytest.approx([mean_harm(model, ids) for ids in DOCUMENTS])
    assert not one.drift(model, random_windows(8, seed=9, tokens=40)).void
    # One token again and again is another kind.
    drift = one.drift(model, [torch.full((40,), number) for number in range(5, 13)])
    assert drift.void
    assert drift.chance < 0.01


def test_drift_is_told_by_many_documents_not_by_one():
    known = [number / 100 for number in range(100)]
    far = drift_of(known, [5.0] * 10)
    assert far.void
    assert far.quantile == 1
    assert not drift_of(known, [5.0]).void
    assert drift_of(known, known).chance == pytest.approx(1)
    with pytest.raises(ValueError, match="0 documents"):
        drift_of(known, [])


def test_it_is_saved_and_loaded(tmp_path, found):
    with pytest.raises(ValueError, match="has no certificate"):
        load_certificate(tmp_path)
    (tmp_path / FILE).write_text(json.dumps(found[0.7].model_dump(mode="json")))
    assert load_certificate(tmp_path) == found[0.7]
    assert "at most 70.0% of the next tokens" in found[0.7].told()
    lost = Certificate.parse({**found[0.7].model_dump(mode="json"), "certified": False})
    assert "certify no price" in lost.told()


def test_layers_without_a_router_are_no_reads_that_could_be_made():
    model = make_retrofitted(unread=(0,))
    layerwise = Layerwise(model, find_sites(model))
    free = DocumentJudge(layerwise, DOCUMENTS)(FREE, torch.tensor([0]))
    assert free.skipped.tolist() == [0]
    assert free.reads.tolist() == pytest.approx([30 / 80])
    assert memories(model)[0].router is None
