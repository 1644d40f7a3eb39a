"""The fast forms of near, remote and whole attention against their definition; parts add up."""

from dataclasses import replace

import pytest
import torch

from torchcram.pretrained.retrofit.attention import (
    _fast_softmax,
    _softmax,
    near_attention,
    remote_attention,
    whole_attention,
)
from torchcram.pretrained.retrofit.entries import Entries, no_sums
from torchcram.pretrained.retrofit.gist import gist_of, gist_reference
from torchcram.pretrained.retrofit.parts import merge, remote_share
from torchcram.pretrained.retrofit.reach import Reach
from torchcram.pretrained.retrofit.reference import near_reference, remote_reference, whole_reference

# time, length, ranks of the first queries
SHAPES = [(150, 150, (0, 0)), (1, 100, (99, 40)), (30, 100, (70, 10)), (5, 5, (0, 0)), (64, 128, (64, 0))]
REACHES = [
    Reach(sinks=3, window=7),
    Reach(sinks=0, window=1),
    Reach(sinks=4, window=64),
    Reach(sinks=3, window=7, own=20),
    Reach(sinks=0, window=7, own=8),
]


def asked(time, length, past, *, grad=False):
    generator = torch.Generator().manual_seed(0)

    def draw(heads, steps):
        drawn = torch.randn(2, heads, steps, 8, generator=generator, dtype=torch.double)
        return drawn.requires_grad_(grad)

    none = torch.zeros(2, dtype=torch.long)
    query, key, value = draw(4, time), draw(2, length), draw(2, length)
    return query, Entries(key=key, value=value, past=torch.tensor(past), shift=none, sums=no_sums(key))


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize(("time", "length", "past"), SHAPES)
@pytest.mark.parametrize(
    ("fast", "slow"), [(near_attention, near_reference), (remote_attention, remote_reference)]
)
def test_fast_parts_are_the_defined_ones(fast, slow, reach, time, length, past):
    query, entries = asked(time, length, past)
    found, defined = fast(query, entries, reach), slow(query, entries, reach)
    torch.testing.assert_close(found.value, defined.value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.log_mass, defined.log_mass, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize(("time", "length", "past"), SHAPES)
def test_near_and_remote_make_the_whole(reach, time, length, past):
    query, entries = asked(time, length, past)
    merged = merge(near_attention(query, entries, reach), remote_attention(query, entries, reach))
    whole = whole_reference(query, entries, reach).value
    torch.testing.assert_close(merged, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize(("time", "length", "past"), SHAPES)
def test_a_read_is_the_whole_for_chosen_tokens_and_nothing_for_others(reach, time, length, past):
    query, entries = asked(time, length, past)
    selected = torch.rand(2, time, generator=torch.Generator().manual_seed(1)) < 0.5
    found = whole_attention(query, entries, reach, selected)
    defined = whole_reference(query, entries, reach).value * selected[:, None, :, None]
    torch.testing.assert_close(found, defined, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reach", REACHES[::3])
@pytest.mark.parametrize(
    ("fast", "slow"), [(near_attention, near_reference), (remote_attention, remote_reference)]
)
def test_gradients_are_those_of_the_definition(fast, slow, reach):
    def gradients(attend):
        query, entries = asked(70, 70, (0, 0), grad=True)
        part = attend(query, entries, reach)
        share = remote_share(near_reference(query, entries, reach), part)
        return torch.autograd.grad(
            (part.value.sin().sum() + share.sum()), (query, entries.key, entries.value)
        )

    for found, defined in zip(gradients(fast), gradients(slow), strict=True):
        torch.testing.assert_close(found, defined, rtol=1e-8, atol=1e-8)


def test_bounded_entries_give_the_same_near_part():
    reach = Reach(sinks=3, window=7)
    query, entries = asked(1, 100, (99, 40))
    kept = torch.stack([torch.cat((torch.arange(3), torch.arange(end - 6, end + 1))) for end in (99, 40)])

    def cut(tensor):
        return tensor.gather(2, kept[:, None, :, None].expand(-1, 2, -1, 8))

    bounded = Entries(
        key=cut(entries.key),
        value=cut(entries.value),
        past=entries.past,
        shift=entries.past - 6 - 3,
        sums=entries.sums,
    )
    found, whole = (near_attention(query, one, reach) for one in (bounded, entries))
    torch.testing.assert_close(found.value, whole.value)
    torch.testing.assert_close(found.log_mass, whole.log_mass)


def test_near_attention_in_half_precision_stays_close():
    query, entries = asked(150, 150, (0, 0))
    reach = Reach(sinks=3, window=7)
    low = near_attention(
        query.bfloat16(),
        Entries(
            key=entries.key.bfloat16(),
            value=entries.value.bfloat16(),
            past=entries.past,
            shift=entries.shift,
            sums=entries.sums,
        ),
        reach,
    )
    assert low.value.dtype == torch.bfloat16
    assert low.log_mass.dtype == torch.float32
    exact = near_attention(query, entries, reach)
    assert (low.value.double() - exact.value).abs().max() < 0.1


@pytest.mark.parametrize("reach", REACHES)
def test_every_seen_token_is_near_or_remote_and_none_is_both(reach):
    rank = torch.arange(50)
    near, remote = reach.near(rank[:, None], rank), reach.remote(rank[:, None], rank)
    assert not bool((near & remote).any())
    assert torch.equal(near | remote, reach.seen(rank[:, None], rank))
    assert torch.equal(remote.sum(1), reach.remote_count(rank))


def test_a_reach_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="window 0"):
        Reach(sinks=1, window=0)


def test_a_window_of_its_own_may_cover_all():
    assert Reach(sinks=1, window=8, own=8).covers_all
    assert not Reach(sinks=1, window=8, own=9).covers_all


@pytest.mark.parametrize("reach", REACHES[:3])
def test_the_gist_is_the_mean_of_what_has_left_the_window(reach):
    query, entries = asked(150, 150, (0, 0))
    found, after = gist_of(entries, reach, torch.tensor([150, 80]), 150)
    defined = gist_reference(entries, reach, 150)
    torch.testing.assert_close(found.key, defined.key)
    torch.testing.assert_close(found.value, defined.value)
    left = slice(reach.sinks, 80 - reach.window)
    both = torch.cat((entries.key, entries.value), -1)
    torch.testing.assert_close(after[1], both[1, :, left].sum(1))


def test_the_gist_goes_on_from_its_sums():
    reach = Reach(sinks=3, window=7)
    _, entries = asked(100, 100, (0, 0))
    whole, _ = gist_of(entries, reach, torch.tensor([100, 100]), 100)
    first = replace(entries, key=entries.key[:, :, :40], value=entries.value[:, :, :40])
    _, sums = gist_of(first, reach, torch.tensor([40, 40]), 40)
    rest, _ = gist_of(
        replace(entries, past=torch.tensor([40, 40]), sums=sums), reach, torch.tensor([60, 60]), 60
    )
    torch.testing.assert_close(rest.value, whole.value[:, :, 40:])


def test_no_real_query_leaves_the_sums():
    _, entries = asked(5, 100, (90, 40))
    entries = replace(entries, sums=torch.ones_like(entries.sums))
    assert torch.equal(gist_of(entries, Reach(sinks=3, window=7), torch.tensor([0, 0]), 5)[1], entries.sums)


def test_the_fast_softmax_has_the_weights_masses_and_gradients_of_the_other():
    scores = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    # Ties, and keys that nobody sees.
    scores[0, :, 3:] = -torch.inf
    scores[1, :, 4] = scores[1, :, 5] = 7.0
    told = [torch.randn(3, 5, 9, dtype=torch.double), torch.randn(3, 5, dtype=torch.double)]
    results = []
    for softmax in (_fast_softmax, _softmax):
        given = scores.clone().requires_grad_()
        outputs = softmax(given)
        (gradient,) = torch.autograd.grad(outputs, given, told)
        results.append((*outputs, gradient))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reach", REACHES)
def test_gradients_of_near_attention_are_the_defined_ones(reach):
    gradients = []
    for near in (near_attention, near_reference):
        query, entries = asked(150, 150, (0, 0), grad=True)
        found = near(query, entries, reach)
        told = torch.randn(found.value.shape, generator=torch.Generator().manual_seed(2)).double()
        loss = (found.value * told).sum() + (found.log_mass * told[..., 0]).sum()
        gradients.append(torch.autograd.grad(loss, (query, entries.key, entries.value)))
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
