"""What is put into a model, what is refused, and in which words."""

import copy

import pytest
import torch

from retrofitted import make_retrofitted
from tiny_models import tiny_model
from torchcram.pretrained.retrofit.install import (
    install,
    is_retrofitted,
    memories,
    reading,
    remove,
    retrofit_of,
)
from torchcram.pretrained.retrofit.semantic import NOTHING
from torchcram.pretrained.retrofit.settings import RetrofitSettings


@pytest.mark.parametrize("family", ["gemma2", "jamba"])
def test_other_families_are_refused_by_name(family):
    with pytest.raises(ValueError, match=r"attention of class \w+ cannot be retrofitted"):
        install(tiny_model(family), RetrofitSettings())


def test_alibi_is_refused():
    with pytest.raises(ValueError, match="alibi adds a bias by distance"):
        install(tiny_model("falcon", alibi=True), RetrofitSettings())


def test_a_model_is_retrofitted_once():
    model = make_retrofitted()
    assert is_retrofitted(model)
    with pytest.raises(ValueError, match="retrofitted already"):
        install(model, RetrofitSettings())
    remove(model)
    with pytest.raises(ValueError, match="is not retrofitted"):
        retrofit_of(model)


def test_layers_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"unread names layers \[5\]: the model has layers 0 to 1"):
        install(tiny_model("llama"), RetrofitSettings(unread=(1, 5)))
    with pytest.raises(ValueError, match="cannot be untouched and never read"):
        RetrofitSettings(unread=(1,), untouched=(1,))


def test_layers_whose_own_window_is_near_stay_as_they_are():
    model = tiny_model("gemma3_text", sliding_window=8, layer_types=["sliding_attention", "full_attention"])
    install(model, RetrofitSettings(sinks=2, window=8))
    assert list(memories(model)) == [1]


def test_layers_can_be_left_untouched():
    model = tiny_model("llama")
    install(model, RetrofitSettings(untouched=(0,), unread=(1,)))
    assert list(memories(model)) == [1]
    assert memories(model)[1].router is None


@torch.no_grad()
@pytest.mark.parametrize("kind", ["linear", "low_rank", "slots"])
def test_a_memory_that_knows_nothing_leaves_near_attention_alone(kind, ids):
    model = tiny_model("llama")
    install(model, RetrofitSettings(sinks=2, window=5, kept=3, kind=kind, slots=3))
    with reading(model, "none"):
        nothing = model(ids).logits
        for memory in memories(model).values():
            memory.forward = lambda asked, memory=memory: _near_alone(memory, asked)
        torch.testing.assert_close(model(ids).logits, nothing, rtol=1e-5, atol=1e-5)
    assert NOTHING < -20


def _near_alone(memory, asked):
    from torchcram.pretrained.retrofit.memory import Answered
    from torchcram.pretrained.retrofit.router import decision_of

    evidence, left = memory.evidence(asked)
    return Answered(
        heads=evidence.near.value.transpose(1, 2),
        decision=decision_of(torch.zeros_like(evidence.remote)),
        left=left,
    )


@torch.no_grad()
def test_a_new_born_router_reads_everything(ids):
    model = tiny_model("llama")
    install(model, RetrofitSettings(sinks=2, window=5, kept=3, price=1.0))
    torch.testing.assert_close(model(ids).logits, tiny_model("llama")(ids).logits, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_a_copy_is_a_model_of_its_own(ids):
    model = make_retrofitted()
    other = copy.deepcopy(model)
    with reading(other, "none"):
        assert retrofit_of(model).control.reads == "routed"
        assert not torch.equal(other(ids).logits, model(ids).logits)
    assert torch.equal(other(ids).logits, model(ids).logits)
    remove(other)
    assert is_retrofitted(model)


@torch.no_grad()
def test_reading_comes_back_after_an_error(ids):
    model = make_retrofitted()
    with pytest.raises(RuntimeError, match="broken"), reading(model, "none", price=3.0):
        raise RuntimeError("broken")
    control = retrofit_of(model).control
    assert (control.reads, control.price, control.budget) == ("routed", 0.5, None)


@torch.no_grad()
def test_masks_that_say_nothing_of_padding_are_refused(ids):
    model = make_retrofitted()
    with pytest.raises(ValueError, match="takes a padding mask"):
        model(ids, attention_mask=torch.ones(2, 1, 40, 40, dtype=torch.bool).tril())
    with pytest.raises(ValueError, match="the mask is 39 tokens long"):
        model(ids, attention_mask=torch.ones(2, 39))
    with pytest.raises(ValueError, match="packed into one row"):
        model(ids, position_ids=torch.cat((torch.arange(20), torch.arange(20)))[None].expand(2, -1))
