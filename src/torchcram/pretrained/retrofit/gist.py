"""The gist of what is remote: the mean of its keys and of its values, a state of fixed size.

It is no read: each token adds the one entry that leaves its window. Heads that look at everything alike get
their answer from the mean value, and the score of the mean key says how much weight there is (to first order,
the log-mass of an average remote token). Everything that ever left the window counts, also where a layer's
own window has ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcram.pretrained.retrofit.entries import Entries, taken
from torchcram.pretrained.retrofit.reach import Reach


@dataclass(frozen=True, kw_only=True)
class Gist:
    """Means over the remote entries of every query; zero where there are none.

    Attributes:
        key: mean key.
        value: mean value.
    """

    key: Float[Tensor, "batch kv_heads time d_head"]
    value: Float[Tensor, "batch kv_heads time d_head"]


def gist_reference(entries: Entries, reach: Reach, steps: int) -> Gist:
    """Return the definition of :func:`gist_of`, by a mask over all entries; all of them must be there."""
    queries, ranks = entries.query_ranks(steps)[..., None], entries.ranks(sinks=reach.sinks)[:, None]
    left = ((ranks >= reach.sinks) & (queries - ranks >= reach.window))[:, None].to(entries.value.dtype)
    weights = left / left.sum(-1, keepdim=True).clamp(min=1)
    return Gist(key=weights @ entries.key, value=weights @ entries.value)


def gist_of(
    entries: Entries, reach: Reach, count: Int[Tensor, " batch"], steps: int
) -> tuple[Gist, Float[Tensor, "batch kv_heads twice"]]:
    """Return the gist for every query, and the sums behind the last real one.

    Args:
        entries: with the sums before the first query.
        reach: what is near.
        count: real queries of each sequence.
        steps: queries, padding included.
    """
    leaving = entries.query_ranks(steps) - reach.window
    index = entries.index(leaving.clamp(min=0), sinks=reach.sinks)
    both = torch.cat((taken(entries.key, index), taken(entries.value, index)), -1)
    both = both.to(entries.sums.dtype) * (leaving >= reach.sinks)[:, None, :, None]
    sums = entries.sums[:, :, None] + both.cumsum(2)
    passed = (leaving - reach.sinks + 1).clamp(min=1)[:, None, :, None]
    key, value = (sums / passed).to(entries.key.dtype).chunk(2, -1)
    last = (count - 1).clamp(min=0)[:, None, None, None].expand(-1, sums.shape[1], 1, sums.shape[3])
    after = torch.where((count > 0)[:, None, None], sums.gather(2, last)[:, :, 0], entries.sums)
    return Gist(key=key, value=value), after
