"""The definition of near, remote and whole attention: all scores, and a mask. Slow, and what the fast forms
are tested against.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.retrofit.entries import Entries
from torchcram.pretrained.retrofit.kept import kept_reference
from torchcram.pretrained.retrofit.parts import Part
from torchcram.pretrained.retrofit.reach import Reach


def near_reference(query: Float[Tensor, "batch heads time d_head"], entries: Entries, reach: Reach) -> Part:
    """Return attention over the near tokens and the kept ones. Queries are already scaled."""
    return _masked(query, entries, reach, reach.near, kept=True)


def remote_reference(query: Float[Tensor, "batch heads time d_head"], entries: Entries, reach: Reach) -> Part:
    """Return attention over the remote tokens that are not kept. Queries are already scaled."""
    return _masked(query, entries, reach, reach.remote, kept=False)


def whole_reference(query: Float[Tensor, "batch heads time d_head"], entries: Entries, reach: Reach) -> Part:
    """Return attention over all tokens that the untouched layer looks at. Queries are already scaled."""
    return _masked(query, entries, reach, reach.seen, kept=True)


def _masked(
    query: Tensor,
    entries: Entries,
    reach: Reach,
    rule: Callable[[Tensor, Tensor], Tensor],
    *,
    kept: bool,
) -> Part:
    """Attend to what a rule shows, with what is kept or without."""
    shared = query.shape[1] // entries.key.shape[1]
    key, value = (tensor.repeat_interleave(shared, 1) for tensor in (entries.key, entries.value))
    visible = rule(
        entries.query_ranks(query.shape[2])[:, None, :, None],
        entries.ranks(sinks=reach.sinks)[:, None, None, :],
    )
    if reach.kept:
        keeps = kept_reference(entries, reach, query.shape[2]).repeat_interleave(shared, 1)
        visible = visible | keeps if kept else visible & ~keeps
    scores = (query @ key.mT).to(torch.promote_types(query.dtype, torch.float32))
    scores = scores.masked_fill(~visible, -torch.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return Part(value=weights.to(value.dtype) @ value, log_mass=scores.logsumexp(-1))
