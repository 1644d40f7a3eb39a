"""What the language model cannot run, it refuses clearly."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from lived import live
from tiny_language_models import PAD, WIDTH, language_model, left_padded, tiny_config, tokens
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.types import Learning, RoutingControl

EXACT = {"rtol": 1e-9, "atol": 1e-9}
GREEDY = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD}


@pytest.fixture(scope="module")
def cram() -> CRAMForCausalLM:
    return language_model()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": torch.ones(0, 4, dtype=torch.long)}, r"the batch is empty: it has shape \(0, 4\)"),
        ({"input_ids": tokens(), "attention_mask": torch.zeros(2, 9)}, "attention_mask is zero everywhere"),
        (
            {"input_ids": tokens(), "attention_mask": torch.ones(2, 8)},
            r"attention_mask is \(2, 8\): 2 sequences of 0 \+ 9 tokens need \(2, 9\)",
        ),
        (
            {"input_ids": tokens(), "attention_mask": torch.ones(2, 1, 9, 9)},
            "packed sequences are told by position_ids",
        ),
        (
            {"input_ids": tokens(), "position_ids": torch.arange(4)[None]},
            "position_ids are for 4 tokens, the batch has 9",
        ),
        (
            {"input_ids": tokens(), "position_ids": torch.arange(3).repeat(3)[None], "use_cache": True},
            "packed sequences have no cache",
        ),
        ({}, "either input_ids or inputs_embeds"),
        (
            {"inputs_embeds": torch.zeros(2, 3, WIDTH, dtype=torch.float32)},
            r"inputs_embeds are torch.float32, the model is torch.float64",
        ),
        (
            {
                "input_ids": tokens(),
                "control": RoutingControl(learning=Learning(consolidate=True)),
                "use_cache": True,
            },
            "does not consolidate through a cache",
        ),
        (
            {"input_ids": tokens(), "attention_mask": torch.ones(2, 9, device="meta")},
            r"attention_mask is on meta, the tokens are on cpu: move it with .to\('cpu'\)",
        ),
        ({"input_ids": tokens().to("meta")}, "the tokens are on meta, the model is on cpu"),
    ],
)
def test_batches_that_cannot_be_run_are_refused(cram, arguments, message):
    with pytest.raises(ValueError, match=message):
        cram(**arguments)


def test_a_cache_filled_in_inference_mode_goes_on_without_it(cram):
    ids = tokens()
    with torch.inference_mode():
        cache = cram(ids[:, :6], use_cache=True).past_key_values
    with torch.no_grad():
        torch.testing.assert_close(
            cram(ids[:, 6:], past_key_values=cache).logits, cram(ids).logits[:, 6:], **EXACT
        )


def test_a_row_of_padding_alone_is_harmless(cram):
    ids, mask = left_padded(tokens(), [9, 0])
    torch.testing.assert_close(cram(ids, attention_mask=mask).logits[0], cram(ids[:1]).logits[0], **EXACT)
    with pytest.raises(ValueError, match="row 1 of attention_mask is padding alone: leave it out"):
        cram.generate(ids, attention_mask=mask, **GREEDY)


def test_sequences_beyond_the_position_range_are_refused():
    model = language_model(max_position_embeddings=6)
    cache = DynamicCache(config=model.config)
    model(tokens()[:, :6], past_key_values=cache)
    with pytest.raises(ValueError, match="a sequence of 7 tokens is longer than max_position_embeddings 6"):
        model(tokens()[:, :1], past_key_values=cache)
    ids, mask = left_padded(tokens(), [6, 2], more=5)
    assert model(ids, attention_mask=mask).logits.isfinite().all()


def test_caches_that_do_not_fit_are_refused(cram):
    def filled(model: CRAMForCausalLM) -> DynamicCache:
        return model(tokens(), use_cache=True).past_key_values

    own = filled(cram)
    for cache, ids, options, message in (
        (
            filled(language_model(options={"window": 4})),
            tokens(),
            {},
            "the cache was filled by another configuration",
        ),
        (
            filled(live(CRAMForCausalLM(cram.config)).eval()),
            tokens(),
            {},
            r"the cache is in torch.float32, the model in torch.float64",
        ),
        (own, tokens(3), {}, "the cache holds 2 sequences, the batch 3: use batch_repeat_interleave"),
        (
            own,
            tokens(),
            {"position_ids": torch.arange(9)[None]},
            "position_ids of row 0 go on with 0, but the cache holds 9 tokens of it: pass 9",
        ),
        (own, tokens(), {"attention_mask": torch.ones(2, 11)}, r"need \(2, 18\)"),
        (DynamicCache(), tokens(), {}, r"pass DynamicCache\(config=model.config\)"),
        (
            StaticCache(config=cram.config, max_cache_len=5),
            tokens(),
            {},
            "9 tokens do not fit a static cache of max_cache_len 5",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            cram(ids, past_key_values=cache, **options)
    moved = filled(cram)
    moved.layers[1]._change(lambda tensor: tensor.to("meta"))
    with pytest.raises(ValueError, match="the cache of layer 1 is on meta, the layer on cpu"):
        cram(tokens(), past_key_values=moved)


def test_assisted_decoding_is_refused(cram):
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        cram.generate(tokens(1), prompt_lookup_num_tokens=2, **GREEDY)


def test_dense_routing_is_refused_where_tokens_are_left_out():
    with pytest.raises(ValueError, match="routing 'dense' is not for mixer 'seqboat'"):
        CRAMForCausalLM(tiny_config("seqboat", routing="dense"))
