"""Near, remote and whole attention, each at the cost of what it looks at.

Near: blocks of queries over the sinks and one stretch of keys, the same work at any length. Remote, with its
log-mass: what semantic memory learns from. Whole, for chosen tokens alone: what a read does. Where a layer
has a sliding window of its own, blocks of queries see the stretch of keys that the window leaves.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from torchcram.ops.routed_attention import routed_attention, routed_attention_lse
from torchcram.pretrained.retrofit.entries import Entries, taken
from torchcram.pretrained.retrofit.parts import Part
from torchcram.pretrained.retrofit.reach import Reach

# Queries of a block: as many as the usual window, so that a block looks at twice as many keys as it needs.
BLOCK = 64


def near_attention(query: Float[Tensor, "batch heads time d_head"], entries: Entries, reach: Reach) -> Part:
    """Fast form of :func:`torchcram.pretrained.retrofit.reference.near_reference`."""
    block = min(query.shape[2], BLOCK)
    first = _first_ranks(query, entries, block)
    inside = torch.arange(block, device=query.device)
    stretch = torch.arange(1 - reach.window, block, device=query.device)
    asked, looked = first[..., None] + inside, first[..., None] + stretch
    sinks = torch.arange(reach.sinks, device=query.device).expand(*first.shape, -1)
    visible = torch.cat(
        (
            reach.near(asked[..., None], sinks[..., None, :]),
            reach.near(asked[..., None], looked[..., None, :]) & (looked >= reach.sinks)[..., None, :],
        ),
        -1,
    )
    return _in_blocks(query, entries, reach, torch.cat((sinks, looked), -1), visible, never_empty=True)


def remote_attention(query: Float[Tensor, "batch heads time d_head"], entries: Entries, reach: Reach) -> Part:
    """Fast form of :func:`torchcram.pretrained.retrofit.reference.remote_reference`; all entries must be
    there.
    """
    if reach.own is not None:
        return _sliding(query, entries, reach, remote=True)
    some = reach.remote_count(entries.query_ranks(query.shape[2])) > 0
    if not bool(some.any()):
        wide = torch.promote_types(query.dtype, torch.float32)
        masses = query.new_full(query.shape[:3], -torch.inf, dtype=wide)
        return Part(value=torch.zeros_like(query), log_mass=masses)
    value, log_mass = routed_attention_lse(
        query,
        entries.key[:, :, reach.sinks :],
        entries.value[:, :, reach.sinks :],
        some,
        offset=entries.past + 1 - reach.window - reach.sinks,
    )
    return Part(value=value, log_mass=log_mass)


def whole_attention(
    query: Float[Tensor, "batch heads time d_head"],
    entries: Entries,
    reach: Reach,
    selected: Bool[Tensor, "batch time"],
) -> Float[Tensor, "batch heads time d_head"]:
    """Return the attention of chosen tokens as the untouched layer has it, zero for the others; all entries
    must be there.

    One token at a time, only the rows of the sequences that read are touched, as views.
    """
    if reach.own is not None:
        return _sliding(query, entries, reach, remote=False).value * selected[:, None, :, None]
    begins = query.shape[2] == entries.key.shape[2]
    return routed_attention(
        query, entries.key, entries.value, selected, offset=1 if begins else entries.past + 1
    )


def _sliding(query: Tensor, entries: Entries, reach: Reach, *, remote: bool) -> Part:
    assert reach.own is not None, "without a window of its own a layer is read by routed attention"
    block = min(query.shape[2], BLOCK)
    first = _first_ranks(query, entries, block)
    asked = first[..., None] + torch.arange(block, device=query.device)
    looked = first[..., None] + torch.arange(1 - reach.own, block, device=query.device)
    rule = reach.remote if remote else reach.seen
    visible = rule(asked[..., None], looked[..., None, :]) & (looked >= 0)[..., None, :]
    return _in_blocks(query, entries, reach, looked, visible)


def _first_ranks(query: Tensor, entries: Entries, block: int) -> Int[Tensor, "batch blocks"]:
    starts = torch.arange(0, query.shape[2], block, device=query.device)
    return entries.past[:, None] + starts


def _in_blocks(
    query: Float[Tensor, "batch heads time d_head"],
    entries: Entries,
    reach: Reach,
    rank: Int[Tensor, "batch blocks keys"],
    visible: Bool[Tensor, "batch blocks block keys"],
    *,
    never_empty: bool = False,
) -> Part:
    """Attend from each block of queries to the entries of its ranks, as far as they are visible; every query
    sees itself if they are never empty.
    """
    batch, heads, time, size = query.shape
    shared, (_, blocks, block, keys) = entries.key.shape[1], visible.shape
    index = entries.index(rank, sinks=reach.sinks).flatten(1)
    key, value = (
        taken(tensor, index).unflatten(2, (blocks, keys)) for tensor in (entries.key, entries.value)
    )
    # Heads that share keys stand in one block, one after the other.
    asked = pad(query, (0, 0, 0, blocks * block - time)).view(batch, shared, -1, blocks, block, size)
    asked = asked.transpose(2, 3).reshape(batch, shared, blocks, -1, size)
    scores = (asked @ key.mT).to(torch.promote_types(query.dtype, torch.float32))
    scores = scores.unflatten(3, (-1, block)).masked_fill_(~visible[:, None, :, None], -torch.inf)
    weights, log_mass = _fast_softmax(scores) if never_empty else _softmax(scores)
    found = weights.to(value.dtype).flatten(3, 4) @ value
    return Part(
        value=_unblocked(found.unflatten(3, (-1, block)), heads)[:, :, :time],
        log_mass=_unblocked(log_mass[..., None], heads)[:, :, :time, 0],
    )


def _softmax(
    scores: Float[Tensor, "*axes keys"],
) -> tuple[Float[Tensor, "*axes keys"], Float[Tensor, "*axes"]]:
    """Return weights and log-masses; where nothing is visible, zero and minus infinity."""
    log_mass = scores.logsumexp(-1)
    return (scores - log_mass.clamp_min(torch.finfo(scores.dtype).min)[..., None]).exp(), log_mass


def _fast_softmax(
    scores: Float[Tensor, "*axes keys"],
) -> tuple[Float[Tensor, "*axes keys"], Float[Tensor, "*axes"]]:
    """Return the same in fewer passes over the scores, where something is visible everywhere: the largest
    weight is that of the largest score, and says what all together weigh.
    """
    weights = scores.softmax(-1)
    return weights, scores.amax(-1) - weights.amax(-1).log()


def _unblocked(blocked: Tensor, heads: int) -> Float[Tensor, "batch heads time width"]:
    """Undo the order of blocks: batch, kv_heads, blocks, sharing heads, block, width."""
    return blocked.transpose(2, 3).flatten(3, 4).reshape(len(blocked), heads, -1, blocked.shape[-1])
