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
from torchcram.pretrained.retrofit.kept import KeptBlocks, kept_entries
from torchcram.pretrained.retrofit.parts import Part
from torchcram.pretrained.retrofit.reach import Reach

# Queries of a block: as many as the usual window, so that a block looks at twice as many keys as it needs.
BLOCK = 64
# Queries whose scores exist at once where all entries are looked at.
PIECE = 256


def block_of(steps: int) -> int:
    """Return how many queries stand in a block of a pass."""
    return min(steps, BLOCK)


def near_attention(
    query: Float[Tensor, "batch heads time d_head"],
    entries: Entries,
    reach: Reach,
    kept: KeptBlocks | None = None,
) -> Part:
    """Fast form of :func:`torchcram.pretrained.retrofit.reference.near_reference`.

    Args:
        query: scaled.
        entries: what can be looked at.
        reach: what is near.
        kept: what each query keeps besides, in blocks of :func:`block_of`.
    """
    block = block_of(query.shape[2])
    first = _first_ranks(query, entries, block)
    inside = torch.arange(block, device=query.device)
    # With kept entries, the one that leaves before the block's first query is among the candidates.
    stretch = torch.arange((1 if kept is None else 0) - reach.window, block, device=query.device)
    asked, looked = first[..., None] + inside, first[..., None] + stretch
    sinks = torch.arange(reach.sinks, device=query.device).expand(*first.shape, -1)
    visible = torch.cat(
        (
            reach.near(asked[..., None], sinks[..., None, :]),
            reach.near(asked[..., None], looked[..., None, :]) & (looked >= reach.sinks)[..., None, :],
        ),
        -1,
    )
    key, value = _gathered(entries, reach, torch.cat((sinks, looked), -1))
    if kept is not None:
        key, value = torch.cat((key, kept.key), 3), torch.cat((value, kept.value), 3)
        visible = _with_kept(visible, kept, reach)
    else:
        visible = visible[:, None]
    return _in_blocks(query, key, value, visible, never_empty=True)


def _with_kept(visible: Bool[Tensor, "batch blocks block keys"], kept: KeptBlocks, reach: Reach) -> Tensor:
    """Return what is near or kept, and behind it what was kept before the block."""
    block = visible.shape[2]
    leaving = pad(kept.leaving, (reach.sinks, visible.shape[3] - reach.sinks - block))
    return torch.cat((visible[:, None] | leaving, kept.before), -1)


def remote_attention(query: Float[Tensor, "batch heads time d_head"], entries: Entries, reach: Reach) -> Part:
    """Fast form of :func:`torchcram.pretrained.retrofit.reference.remote_reference`; all entries must be
    there.
    """
    if reach.own is not None:
        return _sliding(query, entries, reach, remote=True)
    if reach.kept:
        return _not_kept(query, entries, reach)
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


def _not_kept(query: Tensor, entries: Entries, reach: Reach) -> Part:
    """Return attention over what is remote and not kept, a few queries at a time: for lessons alone."""
    keeps, parts = kept_entries(entries, reach, query.shape[2], block_of(query.shape[2])), []
    ranks = entries.ranks(sinks=reach.sinks)[:, None]
    for start in range(0, query.shape[2], PIECE):
        piece = slice(start, start + PIECE)
        some = query[:, :, piece]
        asked = entries.query_ranks(query.shape[2])[:, piece, None]
        rest = reach.remote(asked, ranks)[:, None] & ~keeps[:, :, piece]
        key, value = entries.key[:, :, None], entries.value[:, :, None]
        parts.append(_in_blocks(some, key, value, rest[:, :, None]))
    return Part(
        value=torch.cat([part.value for part in parts], 2),
        log_mass=torch.cat([part.log_mass for part in parts], 2),
    )


def _sliding(query: Tensor, entries: Entries, reach: Reach, *, remote: bool) -> Part:
    assert reach.own is not None, "without a window of its own a layer is read by routed attention"
    block = block_of(query.shape[2])
    first = _first_ranks(query, entries, block)
    asked = first[..., None] + torch.arange(block, device=query.device)
    looked = first[..., None] + torch.arange(1 - reach.own, block, device=query.device)
    rule = reach.remote if remote else reach.seen
    visible = rule(asked[..., None], looked[..., None, :]) & (looked >= 0)[..., None, :]
    return _in_blocks(query, *_gathered(entries, reach, looked), visible[:, None])


def _first_ranks(query: Tensor, entries: Entries, block: int) -> Int[Tensor, "batch blocks"]:
    starts = torch.arange(0, query.shape[2], block, device=query.device)
    return entries.past[:, None] + starts


def _gathered(
    entries: Entries, reach: Reach, rank: Int[Tensor, "batch blocks keys"]
) -> tuple[
    Float[Tensor, "batch kv_heads blocks keys d_head"], Float[Tensor, "batch kv_heads blocks keys d_head"]
]:
    """Return keys and values of some ranks for each block."""
    index = entries.index(rank, sinks=reach.sinks).flatten(1)
    key, value = (
        taken(tensor, index).unflatten(2, tuple(rank.shape[1:])) for tensor in (entries.key, entries.value)
    )
    return key, value


def _in_blocks(
    query: Float[Tensor, "batch heads time d_head"],
    key: Float[Tensor, "batch kv_heads blocks keys d_head"],
    value: Float[Tensor, "batch kv_heads blocks keys d_head"],
    visible: Bool[Tensor, "batch masks blocks block keys"],
    *,
    never_empty: bool = False,
) -> Part:
    """Attend from each block of queries to its keys, as far as they are visible; every query sees itself if
    they are never empty. There is one mask for all heads, or one for each head of keys.
    """
    batch, heads, time, size = query.shape
    shared, (blocks, block) = key.shape[1], visible.shape[2:4]
    # Heads that share keys stand in one block, one after the other.
    asked = pad(query, (0, 0, 0, blocks * block - time)).view(batch, shared, -1, blocks, block, size)
    asked = asked.transpose(2, 3).reshape(batch, shared, blocks, -1, size)
    scores = (asked @ key.mT).to(torch.promote_types(query.dtype, torch.float32))
    scores = scores.unflatten(3, (-1, block)).masked_fill_(~visible[:, :, :, None], -torch.inf)
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
