"""Entries that stay at hand behind the window: the fast form against its definition, and what is kept."""

from dataclasses import replace

import pytest
import torch

from retrofitted import SINKS, WINDOW, make_retrofitted
from tiny_models import tiny_model
from torchcram.pretrained.retrofit.attention import block_of, near_attention, remote_attention
from torchcram.pretrained.retrofit.entries import Entries, fresh_entries, ordered
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.keeper_fit import fit_keepers, given_to_remote, no_keeper_moments
from torchcram.pretrained.retrofit.kept import Keeper, kept_entries, kept_of, kept_reference
from torchcram.pretrained.retrofit.lessons import listening
from torchcram.pretrained.retrofit.memory import Asked
from torchcram.pretrained.retrofit.parts import merge
from torchcram.pretrained.retrofit.reach import Reach
from torchcram.pretrained.retrofit.reference import near_reference, remote_reference, whole_reference

REACHES = [
    Reach(sinks=3, window=7, kept=5),
    Reach(sinks=0, window=1, kept=1),
    Reach(sinks=4, window=64, kept=20),
    Reach(sinks=2, window=5, kept=200),
]
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def asked(steps=150, *, kept, ties=False):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.double).requires_grad_()

    score = draw(2, 2, steps).detach()
    if ties:
        score = score.round()
    entries = fresh_entries(draw(2, 2, steps, 8), draw(2, 2, steps, 8), score, kept=kept)
    return draw(2, 6, steps, 8), entries


def near(query, entries, reach, count=None):
    steps = query.shape[2]
    real = torch.full((2,), steps) if count is None else count
    blocks, after = kept_of(entries, reach, real, steps, block_of(steps))
    return near_attention(query, entries, reach, blocks), after


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("ties", [False, True])
def test_near_attention_with_kept_entries_is_the_defined_one(reach, ties):
    query, entries = asked(kept=reach.kept, ties=ties)
    told = torch.randn(query.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    results = []
    for part in (near(query, entries, reach)[0], near_reference(query, entries, reach)):
        loss = (part.value * told).sum() + (part.log_mass * told[..., 0]).sum()
        gradients = torch.autograd.grad(loss, (query, entries.key, entries.value))
        results.append((part.value, part.log_mass, *gradients))
    for found, defined in zip(*results, strict=True):
        torch.testing.assert_close(found, defined, **EXACT)


@pytest.mark.parametrize("reach", REACHES)
def test_what_is_near_and_what_is_left_make_the_whole(reach):
    query, entries = asked(kept=reach.kept)
    far = remote_attention(query, entries, reach)
    defined = remote_reference(query, entries, reach)
    torch.testing.assert_close(far.value, defined.value, **EXACT)
    torch.testing.assert_close(far.log_mass, defined.log_mass, **EXACT)
    whole = whole_reference(query, entries, reach).value
    torch.testing.assert_close(merge(near(query, entries, reach)[0], far), whole, **EXACT)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("steps", [1, 64, 150])
def test_what_is_kept_is_what_is_defined(reach, steps):
    _, entries = asked(steps, kept=reach.kept, ties=True)
    found = kept_entries(entries, reach, steps, block_of(steps))
    assert torch.equal(found, kept_reference(entries, reach, steps))


@pytest.mark.parametrize("reach", REACHES)
def test_the_number_of_remote_tokens_leaves_out_the_kept_ones(reach):
    _, entries = asked(kept=reach.kept)
    rank = torch.arange(150)
    remote = reach.remote(rank[:, None], rank) & ~kept_reference(entries, reach, 150)
    assert torch.equal(remote.sum(-1), reach.remote_count(rank).expand(2, 2, -1))


def test_the_most_notable_of_those_that_left_are_kept_and_padding_is_not():
    reach = Reach(sinks=3, window=7, kept=5)
    query, entries = asked(kept=5)
    _, after = near(query, entries, reach, torch.tensor([150, 80]))
    for row, end in ((0, 150), (1, 80)):
        for head in range(2):
            left = slice(reach.sinks, end - reach.window)
            best = entries.score[row, head, left].topk(5)
            assert torch.equal(after.score[row, head].sort(descending=True).values, best.values)
            order = after.score[row, head].argsort(descending=True)
            assert torch.equal(after.key[row, head][order], entries.key[row, head, left][best.indices])
            assert torch.equal(after.value[row, head][order], entries.value[row, head, left][best.indices])


@pytest.mark.parametrize("cuts", [(1,), (40, 41), (9, 10, 11, 90), tuple(range(1, 150))])
def test_what_is_kept_does_not_depend_on_how_the_text_was_cut(cuts):
    reach = Reach(sinks=3, window=7, kept=5)
    query, entries = asked(kept=5, ties=True)
    whole, after = near(query, entries, reach)
    parts, kept = [], entries.kept
    for start, end in zip((0, *cuts), (*cuts, 150), strict=True):
        piece = replace(
            entries,
            key=entries.key[:, :, :end],
            value=entries.value[:, :, :end],
            score=entries.score[:, :, :end],
            past=torch.full((2,), start),
            kept=kept,
        )
        part, kept = near(query[:, :, start:end], piece, reach)
        parts.append(part.value)
    torch.testing.assert_close(torch.cat(parts, 2), whole.value, **EXACT)
    assert torch.equal(kept.score.sort().values, after.score.sort().values)


def test_of_equally_notable_entries_the_newer_ones_are_kept():
    reach = Reach(sinks=1, window=2, kept=3)
    states = torch.zeros(1, 1, 20, 4)
    entries = fresh_entries(states, states, torch.zeros(1, 1, 20), kept=3)
    assert kept_reference(entries, reach, 20)[0, 0, -1].nonzero().flatten().tolist() == [15, 16, 17]
    scores = ordered(torch.tensor([[[16.0, 16.0]]]), torch.tensor([100_000, 100_001]))
    assert scores[0, 0, 1] > scores[0, 0, 0]
    # A rank never outweighs what float32 can tell apart.
    assert ordered(torch.tensor([[[1.0]]]), torch.tensor([500_000])) < 1 + torch.finfo(torch.float32).eps


def test_kept_entries_need_a_layer_that_looks_at_everything():
    with pytest.raises(ValueError, match="0 for a layer with a window of its own"):
        Reach(sinks=1, window=8, own=20, kept=3)
    with pytest.raises(ValueError, match="kept -1"):
        Reach(sinks=1, window=8, kept=-1)
    assert all(memory.reach.kept == 0 for memory in memories(make_retrofitted("mistral")).values())


@torch.no_grad()
def test_a_model_that_keeps_everything_is_the_untouched_one_without_reads(ids):
    model = make_retrofitted(kept=40 - SINKS - WINDOW)
    untouched = tiny_model("llama")
    with reading(model, "none"):
        torch.testing.assert_close(model(ids).logits, untouched(ids).logits, rtol=1e-5, atol=2e-5)
    with reading(make_retrofitted(kept=20), "none"):
        less = make_retrofitted(kept=20)(ids).logits - untouched(ids).logits
    assert less[:, -1].abs().max() > 0.01


@pytest.mark.parametrize("unread", [(), (0, 1)])
@torch.no_grad()
def test_the_cache_holds_what_is_kept_and_goes_on_from_it(ids, unread):
    model = make_retrofitted(unread=unread)
    cache = model(ids[:, :30]).past_key_values
    for layer in cache.layers:
        assert layer.kept.key.shape[2] == 3
        assert bool(layer.kept.score.isfinite().all())
    cache.batch_select_indices(torch.tensor([1, 0]))
    swapped = model(ids.flip(0)[:, 30:], past_key_values=cache).logits
    torch.testing.assert_close(swapped.flip(0), model(ids).logits[:, 30:], rtol=1e-5, atol=2e-5)


def a_pass(steps=30):
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(1, 4, steps, 8, generator=generator)
    key, value = torch.randn(2, 1, 2, steps, 8, generator=generator)
    hidden = torch.randn(1, steps, 6, generator=generator)
    return Asked(hidden=hidden, query=query, address=query, entries=fresh_entries(key, value))


def test_what_entries_give_is_mean_attention_from_beyond_the_window_times_length_of_the_value():
    given, reach = a_pass(), Reach(sinks=2, window=4)
    found, enough = given_to_remote(given, reach)
    for head in range(2):
        for entry in range(30):
            weights = []
            for query in range(entry + 4, 30) if entry >= 2 else ():
                scores = given.query[0, 2 * head : 2 * head + 2, query] @ given.entries.key[0, head].T
                weights.append(float(scores[:, : query + 1].softmax(-1)[:, entry].sum()))
            mean = sum(weights) / max(len(weights), 1)
            length = float(given.entries.value[0, head, entry].norm())
            assert float(found[0, head, entry]) == pytest.approx(mean * length, rel=1e-4, abs=1e-7)
            assert bool(enough[0, entry]) == (len(weights) >= 4)


def test_a_keeper_learns_what_is_linear_in_the_state(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(1, 4000, 6, generator=generator) * torch.tensor([1, 1, 1, 1, 1, 300.0]) + 2
    truth = 0.3 * torch.randn(6, 2, generator=generator) / torch.tensor([1, 1, 1, 1, 1, 300.0])[:, None]
    wanted = (hidden @ truth + 1).transpose(1, 2)
    monkeypatch.setattr(
        "torchcram.pretrained.retrofit.keeper_fit.given_to_remote",
        lambda asked, reach: (wanted.exp(), torch.ones(1, 4000, dtype=torch.bool)),
    )
    sums, keeper = no_keeper_moments(width=6, kv_heads=2, device=hidden.device), Keeper(width=6, kv_heads=2)
    sums.add(replace(a_pass(4000), hidden=hidden), Reach(sinks=2, window=4))
    sums.give(keeper)
    found = keeper(hidden)
    assert torch.corrcoef(torch.stack((found[0, 0], wanted[0, 0])))[0, 1] > 0.999
    torch.testing.assert_close(found.std(-1), wanted.std(-1), rtol=0.1, atol=0.0)


@torch.no_grad()
def test_fitted_keepers_keep_more_of_the_remote_attention_than_the_newest_entries(ids):
    model = make_retrofitted()
    layers, masses = memories(model), {}
    for memory in layers.values():
        memory.keeper.weight.zero_()

    def mass(name):
        def hear(layer, asked):
            evidence, _ = layers[layer].evidence(asked)
            masses[name] = masses.get(name, 0) + float(evidence.near.log_mass.sum())

        with listening(layers, hear):
            model(ids)

    with reading(model, "all"):
        mass("newest")
        fit_keepers(model, layers, list(ids))
        mass("fitted")
    assert masses["fitted"] > masses["newest"]


def test_nothing_is_scored_where_nothing_is_kept(ids):
    model = make_retrofitted(kept=0)
    cache = model(ids).past_key_values
    assert all(memory.keeper is None for memory in memories(model).values())
    assert all(layer.kept is None and layer.scores is None for layer in cache.layers)
    assert isinstance(fresh_entries(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)), Entries)
