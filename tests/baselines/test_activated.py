"""The compressed memory: attention among activated tokens, as if the others had never been there."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lived import assert_same, live
from torchcram.baselines.activated import ActivatedMemory
from torchcram.memory.episodic import EpisodicMemory
from torchcram.ops.routed_attention import routed_attention_reference

WIDTH, BATCH, TIME = 16, 3, 9
EXACT = {"rtol": 1e-9, "atol": 1e-9}

pytestmark = pytest.mark.usefixtures("float64")


def memory(window: int | None = None) -> ActivatedMemory:
    return live(ActivatedMemory(WIDTH, heads=2, window=window).double())


def stream(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, TIME, WIDTH, generator=generator, dtype=torch.float64), torch.rand(
        BATCH, TIME, generator=generator, dtype=torch.float64
    )


def some(share: float = 0.5, seed: int = 0) -> Tensor:
    return torch.rand(BATCH, TIME, generator=torch.Generator().manual_seed(seed)) < share


def by_hand(module: ActivatedMemory, h: Tensor, gap: Tensor, activated: Tensor) -> Tensor:
    """Each sequence alone, without its other tokens: the ordinary memory over what is left, all of which
    reads."""
    found = []
    time = gap.cumsum(1)
    for row in range(len(h)):
        kept = activated[row]
        if not kept.any():
            continue
        left, moment = h[row : row + 1, kept], time[row : row + 1, kept]
        between = torch.cat([moment[:, :1], moment.diff(dim=1)], 1)
        plain, stamps = EpisodicMemory.write(module, left, between, EpisodicMemory.init_state(module, 1))
        query = module._queries(module.address(left), stamps)
        everyone = torch.ones(1, int(kept.sum()), dtype=torch.bool)
        out = routed_attention_reference(query, plain.keys, plain.values, everyone, window=module.window)
        found.append(out.transpose(1, 2).flatten(2)[0])
    return torch.cat(found) if found else h.new_zeros(0, h.shape[-1])


@given(
    window=st.none() | st.integers(1, 4), share=st.sampled_from([0.0, 0.2, 0.6, 1.1]), seed=st.integers(0, 20)
)
def test_activated_tokens_attend_as_if_the_others_were_not_there(window, share, seed):
    module, (h, gap), activated = memory(window), stream(seed), some(share, seed)
    h.requires_grad_()
    found, expected = (
        module.attend(h, gap, module.init_state(BATCH), activated)[0],
        by_hand(module, h, gap, activated),
    )
    torch.testing.assert_close(found, expected, **EXACT)
    if activated.any():
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        inputs = [h, module.key.weight, module.value.weight, module.null_value]
        ours, theirs = (torch.autograd.grad((values * weights).sum(), inputs) for values in (found, expected))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, **EXACT)


@given(
    window=st.none() | st.integers(1, 4),
    cut=st.integers(1, TIME - 1),
    share=st.floats(0, 1),
    seed=st.integers(0, 20),
)
def test_in_pieces_it_finds_and_keeps_the_same(window, cut, share, seed):
    module, (h, gap), activated = memory(window), stream(seed), some(share, seed)
    whole, end = module.attend(h, gap, module.init_state(BATCH), activated)
    one, between = module.attend(h[:, :cut], gap[:, :cut], module.init_state(BATCH), activated[:, :cut])
    two, last = module.attend(h[:, cut:], gap[:, cut:], between, activated[:, cut:])
    spread = torch.zeros(BATCH, TIME, WIDTH, dtype=torch.float64)
    spread[:, :cut][activated[:, :cut]], spread[:, cut:][activated[:, cut:]] = one, two
    torch.testing.assert_close(spread[activated], whole, **EXACT)
    assert_same(vars(last), vars(end))


def test_the_buffer_holds_the_null_entry_and_the_activated_tokens_and_no_more():
    module, (h, gap), activated = memory(), stream(), some()
    activated[2] = False
    state = module.attend(h, gap, module.init_state(BATCH), activated)[1]
    assert torch.equal(state.entries, 1 + activated.sum(1))
    assert state.keys.shape[2] == state.values.shape[2] == state.entries.max()
    beyond = torch.arange(state.keys.shape[2]) >= state.entries[:, None]
    assert (state.keys.transpose(1, 2)[beyond] == 0).all()
    assert (state.keys.transpose(1, 2)[~beyond] != 0).any(-1).all()
    torch.testing.assert_close(state.time, gap.sum(1), **EXACT)


def test_a_window_counts_activated_tokens():
    """The last of two activated tokens far apart still sees the first: a window of one bridges what was
    not activated."""
    module, (h, gap) = memory(window=1), stream()
    activated = torch.zeros(BATCH, TIME, dtype=torch.bool)
    activated[:, [0, TIME - 1]] = True
    before = module.attend(h, gap, module.init_state(BATCH), activated)[0][1::2]
    other = h.clone()
    other[:, 0] += 1
    after, state = module.attend(other, gap, module.init_state(BATCH), activated)
    assert (before - after[1::2]).abs().amax(-1).min() > 1e-3
    assert (state.entries == 2).all()


def test_what_is_not_activated_is_neither_read_nor_kept():
    module, (h, gap), activated = memory(), stream(), some()
    other = torch.where(activated[..., None], h, torch.full_like(h, torch.nan))
    ours, theirs = (module.attend(values, gap, module.init_state(BATCH), activated) for values in (h, other))
    assert torch.equal(ours[0], theirs[0])
    assert_same(vars(ours[1]), vars(theirs[1]))


def test_with_every_token_activated_it_is_the_ordinary_memory():
    module, (h, gap) = memory(), stream()
    everyone = torch.ones(BATCH, TIME, dtype=torch.bool)
    found, state = module.attend(h, gap, module.init_state(BATCH), everyone)
    plain, time = EpisodicMemory.write(module, h, gap, EpisodicMemory.init_state(module, BATCH))
    torch.testing.assert_close(
        module.out(found).view_as(h), EpisodicMemory.read(module, h, time, plain, everyone), **EXACT
    )
    for ours, theirs in ((state.keys, plain.keys), (state.values, plain.values), (state.time, plain.time)):
        torch.testing.assert_close(ours, theirs, **EXACT)
