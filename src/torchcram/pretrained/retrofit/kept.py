"""Entries that left the window and stay at hand: of each head, the few most notable ones.

Much of what is looked up far back falls to a few entries (heavy hitters: Zhang et al. 2023, arXiv
2306.14048). How notable an entry is, a linear map of its token's state tells once, when the token comes
(KVzap, arXiv 2601.07891). So a fixed number of entries can be kept, however long the text is, and a token
needs no read for them. They are seen exactly, beside the sinks and the window.

An entry competes from when it leaves the window. It stays while fewer than that number of the entries that
left so far are more notable, so what is kept does not depend on how the text was cut into passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcram.pretrained.retrofit.entries import Entries, Kept, taken
from torchcram.pretrained.retrofit.reach import Reach


class Keeper(nn.Module):
    """Tells how notable tokens are to each head of keys: a linear map, fitted in closed form, see
    :mod:`torchcram.pretrained.retrofit.keeper_fit`. A new-born one finds all alike: then the newest stay.

    Args:
        width: of the block's input.
        kv_heads: heads of keys.
    """

    weight: Tensor

    def __init__(self, *, width: int, kv_heads: int):
        super().__init__()
        # No parameters: what is kept is a choice, through which no gradient flows.
        self.register_buffer("weight", torch.zeros(kv_heads, width))

    @torch.no_grad()
    def forward(self, hidden: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch kv_heads time"]:
        """Return the logarithm of what a token is expected to give to those beyond its window, up to a
        constant of each head.
        """
        return (hidden.to(self.weight.dtype) @ self.weight.T).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class KeptBlocks:
    """What blocks of queries see of the kept entries.

    Attributes:
        key, value: of the entries that were kept before each block's first query.
        before: which of them each query still sees.
        leaving: which of the entries that leave the window from the block's first query on it sees.
    """

    key: Float[Tensor, "batch kv_heads blocks kept d_head"]
    value: Float[Tensor, "batch kv_heads blocks kept d_head"]
    before: Bool[Tensor, "batch kv_heads blocks block kept"]
    leaving: Bool[Tensor, "batch kv_heads blocks block block"]


def kept_reference(entries: Entries, reach: Reach, steps: int) -> Bool[Tensor, "batch kv_heads steps length"]:
    """Return which entries every query keeps: the definition, by all scores; all entries must be there."""
    assert entries.score is not None, "what is kept needs scores"
    queries, ranks = entries.query_ranks(steps)[..., None], entries.ranks(sinks=reach.sinks)[:, None]
    left = reach.remote(queries, ranks)[:, None]
    scores = torch.where(left, entries.score[:, :, None], -torch.inf)
    least = scores.topk(min(reach.kept, scores.shape[-1]), -1).values[..., -1:]
    return left & (scores >= least)


def kept_entries(
    entries: Entries, reach: Reach, steps: int, block: int
) -> Bool[Tensor, "batch kv_heads steps length"]:
    """Fast form of :func:`kept_reference`: what a query keeps is no less notable than the least of it.

    Args:
        entries: all of them, with what was kept before the first query.
        reach: what is near.
        steps: queries.
        block: queries of a block.
    """
    pool = _pool(entries, reach, entries.past.new_full(entries.past.shape, steps), steps, block)
    scores, seen = _candidates(pool, _best_so_far(pool.score, reach.kept, block), reach.kept, block)
    least = scores[..., None, :].masked_fill(~seen, torch.inf).amin(-1).flatten(2)[:, :, :steps, None]
    queries, ranks = entries.query_ranks(steps)[..., None], entries.ranks(sinks=reach.sinks)[:, None]
    assert entries.score is not None, "what is kept needs scores"
    return reach.remote(queries, ranks)[:, None] & (entries.score[:, :, None] >= least)


def kept_of(
    entries: Entries, reach: Reach, count: Int[Tensor, " batch"], steps: int, block: int
) -> tuple[KeptBlocks, Kept]:
    """Return what blocks of queries keep, and what is kept behind the last real query.

    Args:
        entries: with what was kept before the first query.
        reach: what is near.
        count: real queries of each sequence.
        steps: queries, padding included.
        block: queries of a block.
    """
    if steps == 1:
        return _one_step(entries, reach, count)
    pool = _pool(entries, reach, count, steps, block)
    size, index = reach.kept, _best_so_far(pool.score, reach.kept, block)
    start, after = _at(pool, index[:, :, :-1].flatten(2)), _at(pool, index[:, :, -1])
    blocks = index.shape[2] - 1
    _, seen = _candidates(pool, index, size, block)
    return KeptBlocks(
        key=start.key.unflatten(2, (blocks, size)),
        value=start.value.unflatten(2, (blocks, size)),
        before=seen[..., :size],
        leaving=seen[..., size:],
    ), after


def _one_step(entries: Entries, reach: Reach, count: Tensor) -> tuple[KeptBlocks, Kept]:
    """The same for a single query: the entry that leaves takes the place of the least notable one, or none
    does.
    """
    assert entries.kept is not None and entries.score is not None, "nothing is kept here"
    kept, leaving = entries.kept, entries.past[:, None] - reach.window
    index = entries.index(leaving.clamp(min=0), sinks=reach.sinks)
    real = (leaving >= reach.sinks) & (count > 0)[:, None]
    score = taken(entries.score[..., None], index)[..., 0].masked_fill(~real[:, None], -torch.inf)
    least, place = kept.score.min(-1, keepdim=True)
    enters = score > least
    if bool(enters.any()):
        wide = place[..., None].expand(-1, -1, 1, kept.key.shape[3])
        key, value = (
            old.scatter(2, wide, torch.where(enters[..., None], taken(new, index), old.gather(2, wide)))
            for old, new in ((kept.key, entries.key), (kept.value, entries.value))
        )
        kept = Kept(key=key, value=value, score=kept.score.scatter(2, place, torch.maximum(score, least)))
    before = (kept.score > -torch.inf)[:, :, None, None]
    none = before.new_zeros(*before.shape[:4], 1)
    return KeptBlocks(
        key=kept.key[:, :, None], value=kept.value[:, :, None], before=before, leaving=none
    ), kept


def _pool(entries: Entries, reach: Reach, count: Tensor, steps: int, block: int) -> Kept:
    """Return what was kept, and behind it the entry that leaves before each query, up to whole blocks."""
    assert entries.kept is not None and entries.score is not None, "nothing is kept here"
    step = torch.arange(-(-steps // block) * block, device=count.device)
    leaving = entries.past[:, None] + step - reach.window
    index = entries.index(leaving.clamp(min=0), sinks=reach.sinks)
    real = (leaving >= reach.sinks) & (step < count[:, None])
    score = taken(entries.score[..., None], index)[..., 0]
    before = entries.kept
    return Kept(
        key=torch.cat((before.key, taken(entries.key, index)), 2),
        value=torch.cat((before.value, taken(entries.value, index)), 2),
        score=torch.cat((before.score, score.masked_fill(~real[:, None], -torch.inf)), 2),
    )


def _best_so_far(
    score: Float[Tensor, "batch kv_heads pool"], size: int, block: int
) -> Int[Tensor, "batch kv_heads starts size"]:
    """Return where in the pool the most notable entries stand, before each block and behind the last one."""
    shape = score.shape[:2]
    place = torch.arange(score.shape[2], device=score.device)
    found = [place[:size].expand(*shape, -1)]
    for start in range(size, score.shape[2], block):
        known = torch.cat((found[-1], place[start : start + block].expand(*shape, -1)), -1)
        found.append(known.gather(2, score.gather(2, known).topk(size, -1).indices))
    return torch.stack(found, 2)


def _candidates(
    pool: Kept, index: Int[Tensor, "batch kv_heads starts size"], size: int, block: int
) -> tuple[Float[Tensor, "batch kv_heads blocks candidates"], Bool[Tensor, "..."]]:
    """Return the scores of all that a block may keep, and which of it each query does keep."""
    start = pool.score.gather(2, index[:, :, :-1].flatten(2)).unflatten(2, (-1, size))
    scores = torch.cat((start, pool.score[:, :, size:].unflatten(2, (-1, block))), -1)
    return scores, _staying(scores, size, block)


def _staying(
    score: Float[Tensor, "batch kv_heads blocks candidates"], size: int, block: int
) -> Bool[Tensor, "batch kv_heads blocks block candidates"]:
    """Return which candidates every query of a block keeps: of those that are there by then, the most
    notable.
    """
    step = torch.arange(block, device=score.device)
    there = torch.cat((step.new_full((size,), -1), step)) <= step[:, None]
    there = there & (score > -torch.inf)[..., None, :]
    better = score[..., :, None] < score[..., None, :]
    # float32 counts exactly up to 16 million.
    ahead = there.float() @ better.mT.float()
    return there & (ahead < size)


def _at(pool: Kept, index: Int[Tensor, "batch kv_heads chosen"]) -> Kept:
    """Return some entries of a pool."""
    wide = index[..., None].expand(*index.shape, pool.key.shape[3])
    return Kept(
        key=pool.key.gather(2, wide), value=pool.value.gather(2, wide), score=pool.score.gather(2, index)
    )
