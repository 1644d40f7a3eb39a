"""Spans of the first half of a window come again in its second half, out of the near tokens' reach."""

import pytest
import torch

from torchcram.pretrained.retrofit.recalls import with_recalls


@pytest.mark.parametrize(("tokens", "near"), [(1024, 68), (300, 68), (48, 7)])
@pytest.mark.parametrize("seed", range(5))
def test_what_comes_again_was_said_far_behind(tokens, near, seed):
    # Every token is another one: what is changed tells where it came from.
    ids = torch.arange(tokens)
    mixed = with_recalls(ids, near=near, generator=torch.Generator().manual_seed(seed))
    changed = (mixed != ids).nonzero()[:, 0]
    assert len(changed) >= tokens // 256 * 2
    assert int(changed.min()) >= tokens // 2
    assert bool((changed - mixed[changed] > near).all())
    assert bool((mixed[changed] < tokens // 2).all())
    again = with_recalls(ids, near=near, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(mixed, again)
    assert torch.equal(ids, torch.arange(tokens))


def test_spans_come_again_as_a_whole():
    ids = torch.arange(1024)
    mixed = with_recalls(ids, near=68, generator=torch.Generator().manual_seed(0))
    changed = (mixed != ids).nonzero()[:, 0]
    neighbours = changed[1:][changed.diff() == 1]
    follows = (mixed[neighbours] - mixed[neighbours - 1] == 1).double().mean()
    assert follows > 0.9


def test_a_window_that_is_too_short_stays():
    ids = torch.arange(20)
    assert with_recalls(ids, near=68, generator=torch.Generator()) is ids
