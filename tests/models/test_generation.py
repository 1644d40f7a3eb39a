"""Prompts for ``generate``: continued as they would be without a cache, or refused by one clear error."""

import copy
import threading

import pytest
import torch
from transformers import DynamicCache, StaticCache

from tiny_language_models import PAD, language_model, left_padded, tokens
from torchcram.models.cache import read_meter
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.types import ReadBudget

GREEDY = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD}


@pytest.fixture(scope="module")
def cram() -> CRAMForCausalLM:
    return language_model()


# padding


@pytest.mark.parametrize("how", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("told", [True, False], ids=["mask", "token"])
def test_a_prompt_that_ends_in_padding_is_refused(cram, how, told):
    """Also where the mask is guessed from the padding token."""
    ids, mask = tokens(2), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    ids[1, 6:] = PAD
    with pytest.raises(ValueError, match=r"row 1 of the prompt ends in padding.*padding_side='left'"):
        cram.generate(ids, **({"attention_mask": mask} if told else {}), **how, **GREEDY)


def test_a_prompt_in_pieces_is_the_same_prompt(cram):
    """A piece may hold nothing but a row's padding, or nothing but padding at all."""
    ids, mask = left_padded(tokens(2), [9, 2], more=4)
    whole = cram.generate(ids, attention_mask=mask, **GREEDY)
    for size in (3, 4, 13):
        pieces = cram.generate(ids, attention_mask=mask, prefill_chunk_size=size, **GREEDY)
        assert torch.equal(pieces, whole), size


# a cache that holds the prompt


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_cache_may_hold_the_whole_prompt(cram, static, beams):
    ids, mask = left_padded(tokens(2), [9, 5])
    cache = StaticCache(config=cram.config, max_cache_len=20) if static else DynamicCache(config=cram.config)
    cram(ids[:, :6], attention_mask=mask[:, :6], past_key_values=cache)
    # One row goes on with padding, and keeps what its last token said.
    cram(ids[:, 6:], attention_mask=mask, past_key_values=cache)
    cache.batch_repeat_interleave(beams)
    options = {"attention_mask": mask, "num_beams": beams, **GREEDY}
    assert torch.equal(cram.generate(ids, past_key_values=cache, **options), cram.generate(ids, **options))


def test_a_generation_may_be_resumed_where_it_stopped(cram):
    """The last token is not in the cache yet; and once it is, nothing changes."""
    cache = DynamicCache(config=cram.config)
    begun = cram.generate(tokens(), past_key_values=cache, **GREEDY)
    fed = copy.deepcopy(cache)
    cram(begun[:, -1:], past_key_values=fed)
    assert (cache.get_seq_length(), fed.get_seq_length()) == (12, 13)
    once = cram.generate(tokens(), **{**GREEDY, "max_new_tokens": 8})
    for held in (cache, fed):
        assert torch.equal(cram.generate(begun, past_key_values=held, **GREEDY), once)


def test_a_row_that_ended_keeps_its_last_output(cram):
    """A piece that is padding for a row leaves what it said last."""
    ids = tokens(2)
    cache = DynamicCache(config=cram.config)
    said = cram(ids, past_key_values=cache).logits[:, -1]
    mask = torch.cat([torch.ones(2, 9), torch.tensor([[0.0], [1.0]])], 1)
    more = cram(ids[:, :1], attention_mask=mask, past_key_values=cache).logits[:, -1]
    again = cram(ids[:, :0], past_key_values=cache).logits
    torch.testing.assert_close(again[:, 0], torch.stack([said[0], more[1]]))
    cache.reset()
    with pytest.raises(ValueError, match="there are no tokens, neither in the cache nor for it"):
        cram(ids[:, :0], past_key_values=cache)


def test_a_prompt_shorter_than_the_cache_is_refused(cram):
    cache = DynamicCache(config=cram.config)
    cram(tokens(), past_key_values=cache)
    with pytest.raises(ValueError, match="the cache holds 9 tokens, the prompt has 5: pass all tokens"):
        cram.generate(tokens()[:, :5], past_key_values=cache, **GREEDY)


# arguments


def test_routes_are_not_an_output_of_generate(cram):
    with pytest.raises(ValueError, match="generate returns no routes: call the model on what was generated"):
        cram.generate(tokens(), output_routing=True, **GREEDY)


def test_a_budget_is_local_to_the_call(cram):
    """While one thread generates within a budget, another one reads as it would alone."""
    free, bounded = DynamicCache(config=cram.config), DynamicCache(config=cram.config)
    inside, done = threading.Event(), threading.Event()

    def wait(*_: object) -> bool:
        inside.set()
        return not done.wait(60)

    worker = threading.Thread(
        target=lambda: cram.generate(
            tokens(), past_key_values=bounded, read_budget=0, stopping_criteria=[wait], **GREEDY
        )
    )
    worker.start()
    assert inside.wait(60)
    assert cram.read_budget is None
    cram.generate(tokens(), past_key_values=free, **GREEDY)
    done.set()
    worker.join()
    alone = DynamicCache(config=cram.config)
    cram.generate(tokens(), past_key_values=alone, **GREEDY)
    assert torch.equal(read_meter(free).reads, read_meter(alone).reads)
    assert read_meter(bounded).reads.sum() == 0 < read_meter(free).reads.sum()


def test_a_budget_of_one_call_goes_before_that_of_the_model(cram):
    with cram.set_read_budget(0.5):
        assert cram(tokens(), read_budget=0, output_routing=True).read_rates.tolist() == [0, 0]
        assert cram.read_budget == ReadBudget(ratio=0.5)
    with pytest.raises(ValueError, match=r"ratio 1.5 must lie in \[0, 1\]"):
        cram.generate(tokens(), read_budget=1.5, **GREEDY)
    with pytest.raises(ValueError, match="has no router that could keep a read budget"):
        language_model("transformer").generate(tokens(), read_budget=0.5, **GREEDY)
