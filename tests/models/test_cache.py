"""The cache: rows are chosen, repeated and reordered with all that they carry; nothing is taken back; what
was read is counted."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from lived import state_tensors
from tiny_language_models import language_model, tokens
from torchcram.models.cache import CRAMCacheLayer, CRAMStaticCacheLayer, read_meter
from torchcram.models.modeling_cram import CRAMForCausalLM


@pytest.fixture(scope="module")
def cram() -> CRAMForCausalLM:
    return language_model()


@pytest.fixture
def cache(cram: CRAMForCausalLM) -> DynamicCache:
    return cram(tokens(), use_cache=True).past_key_values


def rows(cache: DynamicCache) -> list[dict]:
    return [state_tensors(layer.state) | {"spent": layer.state.spent} for layer in cache.layers]


def test_transformers_builds_our_layers_by_itself(cram):
    assert all(type(layer) is CRAMCacheLayer for layer in DynamicCache(config=cram.config).layers)
    static = StaticCache(config=cram.config, max_cache_len=7)
    assert all(type(layer) is CRAMStaticCacheLayer for layer in static.layers)
    assert (static.get_max_length(), static.is_compileable, static.is_croppable) == (7, False, False)


@pytest.mark.parametrize(
    ("change", "chosen"),
    [
        (lambda cache: cache.reorder_cache(torch.tensor([1, 1])), [1, 1]),
        (lambda cache: cache.batch_select_indices(torch.tensor([1])), [1]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1]),
    ],
    ids=["reorder", "select", "repeat"],
)
def test_rows_move_with_all_that_they_carry(cache, change, chosen):
    before = rows(cache)
    change(cache)
    for layer, former in zip(rows(cache), before, strict=True):
        assert set(layer) == {"working", "surprise", "keys", "values", "time", "entries", "spent"}
        for name, tensor in layer.items():
            assert torch.equal(tensor, former[name][chosen]), name


def test_a_cache_starts_afresh(cram, cache):
    expected = cram(tokens(3), use_cache=False).logits
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(cram(tokens(3), past_key_values=cache).logits, expected, rtol=1e-9, atol=1e-9)


def test_what_a_recurrence_has_taken_in_cannot_be_taken_out(cache):
    cache.crop(0)
    with pytest.raises(
        ValueError, match=r"cannot remove 2 tokens: a recurrent state has no way back. Keep a copy"
    ):
        cache.crop(2)


def test_keys_alone_do_not_fill_it(cache):
    with pytest.raises(ValueError, match="a CRAM cache layer is filled by a CRAM model"):
        cache.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0)


def test_the_meter_counts_tokens_and_reads(cache):
    meter = read_meter(cache)
    assert meter.tokens.tolist() == [9, 9]
    assert meter.rates.shape == (2, 2)
    torch.testing.assert_close(meter.rates[:, 1], cache.layers[1].read_rate)
    assert 0 < meter.rates.mean() < 1
    with pytest.raises(ValueError, match="has counted nothing"):
        read_meter(DynamicCache())


def test_a_bounded_buffer_stays_bounded():
    """Sixty tokens with a window of three: memory for a few windows, and the latest entries are the ones
    that are left."""
    model = language_model(options={"window": 3})
    cache = DynamicCache(config=model.config)
    for t in range(60):
        model(tokens(2, 60)[:, t : t + 1], past_key_values=cache)
    memory = cache.layers[0].state.episodic
    assert memory.keys.shape[2] <= 64 + 1
    assert memory.entries.max() <= 2 * (3 + 1)
    assert memory.time.tolist() == [60.0, 60.0]
