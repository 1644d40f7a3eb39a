"""The cache: bounded where nothing is read, fit for everything that ``generate`` does, and honest about what
it cannot do.
"""

import copy

import pytest
import torch
from transformers import DynamicCache

from retrofitted import KEPT, SINKS, WINDOW, make_retrofitted
from tiny_models import tiny_model
from torchcram.pretrained.retrofit import attention as attention_file
from torchcram.pretrained.retrofit.cache import RetrofitCacheLayer
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.types import ReadBudget

CLOSE = {"rtol": 1e-5, "atol": 2e-5}
NOT_ENDING = {"eos_token_id": None, "pad_token_id": 0, "max_new_tokens": 12}


def generated(model, ids, **options):
    torch.manual_seed(0)
    return model.generate(ids, attention_mask=torch.ones_like(ids), **{**NOT_ENDING, **options})


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "top_k": 5}, {"num_beams": 3}])
def test_generation_with_the_cache_is_generation_without(ids, options):
    model = make_retrofitted(unread=(1,))
    assert torch.equal(generated(model, ids, **options), generated(model, ids, use_cache=False, **options))


def test_generation_reading_everything_is_that_of_the_untouched_model(ids):
    model = make_retrofitted()
    with reading(model, "all"):
        assert torch.equal(generated(model, ids), generated(tiny_model("llama"), ids))


@pytest.mark.parametrize("unread", [(), (0,), (0, 1)])
def test_a_left_padded_batch_generates_what_its_sequences_generate_alone(ids, unread):
    model = make_retrofitted(unread=unread)
    mask = torch.ones_like(ids)
    mask[1, :11] = 0
    together = model.generate(ids.masked_fill(mask == 0, 0), attention_mask=mask, **NOT_ENDING)
    for row, start in ((0, 0), (1, 11)):
        alone = generated(model, ids[row : row + 1, start:])
        assert torch.equal(together[row, 40:], alone[0, 40 - start :])


@torch.no_grad()
@pytest.mark.parametrize("unread", [(), (0,), (0, 1)])
def test_a_second_turn_goes_on_where_the_first_ended(ids, unread):
    model = make_retrofitted(unread=unread)
    cache = DynamicCache(config=model.config)
    mask = torch.ones_like(ids)
    mask[1, 22:26] = 0  # the second sequence's second turn is shorter
    model(ids[:, :22], past_key_values=cache)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    second = model(
        ids[:, 22:], past_key_values=cache, attention_mask=mask, position_ids=places[:, 22:]
    ).logits
    torch.testing.assert_close(second[0], model(ids[:1]).logits[0, 22:], **CLOSE)
    alone = model(torch.cat((ids[1:, :22], ids[1:, 26:]), 1)).logits
    torch.testing.assert_close(second[1, 4:], alone[0, 22:], **CLOSE)


@torch.no_grad()
def test_layers_that_never_read_hold_what_is_near_and_kept_alone(ids):
    model = make_retrofitted(unread=(0,))
    cache = model(ids).past_key_values
    model(ids[:, :1], past_key_values=cache)
    bounded, full = cache.layers
    assert bounded.keys.shape[2] == SINKS + WINDOW
    assert full.keys.shape[2] >= 41
    assert bounded.bytes == full.bytes * (SINKS + WINDOW + KEPT) // (41 + KEPT)
    assert [layer.get_seq_length() for layer in cache.layers] == [41, 41]


@torch.no_grad()
def test_one_step_touches_only_the_rows_that_read(ids, monkeypatch):
    """A spy stands in for the keys and values of a sequence that must not read: touching them gives NaN."""
    model = make_retrofitted()
    cache = model(ids).past_key_values
    untouched = copy.deepcopy(cache)
    with reading(model, "none"):
        plain = model(ids[:, :1], past_key_values=copy.deepcopy(cache)).logits
        far = slice(SINKS, 40 - WINDOW)
        for layer in untouched.layers:
            layer.keys[:, :, far] = torch.nan
            layer.values[:, :, far] = torch.nan
        assert torch.equal(model(ids[:, :1], past_key_values=untouched).logits, plain)
    looked = []
    original = attention_file.routed_attention

    def spy(query, key, value, selected, **others):
        looked.append(selected.clone())
        assert key.data_ptr() == cache.layers[len(looked) - 1].keys.data_ptr()
        return original(query, key, value, selected, **others)

    monkeypatch.setattr(attention_file, "routed_attention", spy)
    with reading(model, "all"):
        model(ids[:, :1], past_key_values=cache)
    assert len(looked) == 2


@torch.no_grad()
def test_a_budget_is_never_exceeded_over_prompt_and_continuation(ids):
    model = make_retrofitted(price=0.0)
    for budget, bound in ((ReadBudget(ratio=0.25), 10), (ReadBudget(tokens=3), 3)):
        cache = DynamicCache(config=model.config)
        with reading(model, budget=budget):
            for piece in (ids[:, :20], *ids[:, 20:].split(1, 1)):
                model(piece, past_key_values=cache)
        spent = torch.stack([layer.spent for layer in cache.layers])
        assert (spent[..., 0] == 40).all()
        assert (spent[..., 1] <= bound).all()
        assert (spent[..., 1] > 0).any()
        assert (cache.layers[0].read_rate <= bound / 40).all()


@torch.no_grad()
def test_a_cache_of_the_untouched_model_is_refused(ids):
    cache = tiny_model("llama")(ids).past_key_values
    with pytest.raises(ValueError, match="filled by an untouched model: start with a new cache"):
        make_retrofitted()(ids[:, :1], past_key_values=cache)


@torch.no_grad()
def test_a_cache_of_other_settings_is_refused(ids):
    cache = make_retrofitted(unread=(1,))(ids).past_key_values
    with pytest.raises(ValueError, match="layer 1 of the cache was filled under other settings"):
        make_retrofitted()(ids[:, :1], past_key_values=cache)


@torch.no_grad()
def test_a_cache_of_other_sequences_is_refused(ids):
    model = make_retrofitted()
    cache = model(ids).past_key_values
    with pytest.raises(ValueError, match="holds 2 sequences, the batch 1"):
        model(ids[:1, :1], past_key_values=cache)


@torch.no_grad()
def test_what_was_taken_in_is_not_taken_out(ids):
    cache = make_retrofitted()(ids).past_key_values
    cache.crop(0)
    with pytest.raises(ValueError, match="cannot remove -1 tokens"):
        cache.crop(-1)
    cache.reset()
    assert cache.get_seq_length() == 0


def test_an_untouched_model_cannot_fill_it(ids):
    model = make_retrofitted()
    layer = RetrofitCacheLayer(reach=next(iter(memories(model).values())).reach, bounded=False)
    with pytest.raises(ValueError, match="filled by a retrofitted model"):
        layer.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))


def test_gradients_need_an_empty_cache(ids):
    model = make_retrofitted()
    cache = model(ids).past_key_values
    with pytest.raises(ValueError, match="train with use_cache=False"):
        model(ids, past_key_values=cache)
