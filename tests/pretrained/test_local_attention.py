"""Attention on a buffer: the block itself where the buffer holds everything, blind to what lies behind it,
in every family."""

import pytest
import torch
from torch import Tensor

from tiny_models import FAMILIES, tiny_model
from torchcram.pretrained.capture import capture
from torchcram.pretrained.local_attention import LocalAttention, local_attention
from torchcram.pretrained.sites import find_sites

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def seen(model, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Input and output of every block on one window."""
    pairs = []

    def note(number: int, x: Tensor, output: Tensor) -> Tensor:
        pairs.append((x, output))
        return output

    with torch.no_grad(), capture(find_sites(model), replace=note):
        model(input_ids=ids[None], use_cache=False)
    return pairs


def made(model, reach: int) -> list[LocalAttention]:
    return local_attention(model, find_sites(model), reach=reach)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", [1, 6, 9])
def test_within_the_buffer_it_is_the_block(family, tokens):
    model = tiny_model(family)
    for local, (x, output) in zip(made(model, 4), seen(model, torch.arange(3, 3 + tokens)), strict=True):
        torch.testing.assert_close(local(x), output, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_beyond_the_buffer_a_token_sees_the_first_and_its_neighbours(family):
    """Piece by piece, each is the block on the first token, ``reach`` tokens before the piece, and the
    piece."""
    model, reach = tiny_model(family), 3
    x = torch.randn(15, find_sites(model)[0].width)
    with torch.no_grad():
        for local in made(model, reach):
            outputs = local(x)
            for start in (7, 10, 13):
                piece = torch.cat((x[:1], x[start - reach : start + reach]))
                torch.testing.assert_close(outputs[start : start + reach], local(piece)[1 + reach :], **CLOSE)


def test_no_later_token_and_nothing_behind_the_buffer_is_seen():
    model, reach = tiny_model("llama"), 2
    x, local = torch.randn(16, find_sites(model)[0].width), made(model, reach)[0]
    with torch.no_grad():
        before = local(x)
        for changed in range(16):
            other = x.clone()
            other[changed] += 1
            moved = (local(other) - before).abs().amax(1) > 1e-6
            blind = torch.arange(16) < changed
            if changed > 0:
                blind |= torch.arange(16) - changed >= 2 * reach + (1 if changed < local.buffer else 0)
            assert not moved[blind].any()
            assert moved[changed]


def test_the_first_token_is_seen_from_everywhere():
    model = tiny_model("llama")
    x, local = torch.randn(16, find_sites(model)[0].width), made(model, 2)[0]
    other = torch.cat((x[:1] + 1, x[1:]))
    with torch.no_grad():
        assert ((local(other) - local(x)).abs().amax(1) > 1e-6).all()


@pytest.mark.parametrize("reach", [1, 2, 3])
@pytest.mark.parametrize("tokens", [1, 4, 7, 12, 16])
def test_what_it_looks_at_is_counted(reach, tokens):
    """As many entries as change something: each is changed in turn, and the tokens whose output moves have
    looked at it."""
    model = tiny_model("llama")
    x, local = torch.randn(tokens, find_sites(model)[0].width), made(model, reach)[0]
    with torch.no_grad():
        before, seen_entries = local(x), 0
        for changed in range(tokens):
            other = x.clone()
            other[changed] += 1
            seen_entries += int(((local(other) - before).abs().amax(1) > 1e-7).sum())
    assert local.looked_at(tokens) == seen_entries
