"""Routed attention in tiles that stay in cache: blocks of selected queries over tiles of keys.

The softmax is kept by a running maximum (Milakov & Gimelshein 2018), as in FlashAttention (Dao et al. 2022).
Queries are packed in the order of their steps, so a tile of keys is read by a range of them only: those after
it, and, with a window, not too far after it. Scores never exist for more than one block and one tile;
backward recomputes them from the log-sum-exp.
Legend: ``rows`` = batch x heads; ``packed`` selected queries of each row; ``end`` = number of entries written
before a query's step.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Scores held at once (all rows of a block and a tile), fewest and most queries of a block: measured on CPU,
# see benchmarks/.
SCORES = 2**20
SHORTEST, LARGEST = 128, 256


@dataclass(frozen=True)
class Tile:
    """Packed queries ``first`` to ``last - 1`` against entries ``start`` to ``stop - 1``.

    ``hidden`` is where a query must not see an entry, for as many of the first queries as do not see the
    whole tile; None if all do.
    """

    first: int
    last: int
    start: int
    stop: int
    hidden: Bool[Tensor, "batch edge entries"] | None

    @property
    def queries(self) -> slice:
        """The packed queries."""
        return slice(self.first, self.last)

    @property
    def entries(self) -> slice:
        """The entries of the memory."""
        return slice(self.start, self.stop)


def tiles(end: Int[Tensor, "batch packed"], *, length: int, heads: int, window: int | None) -> list[Tile]:
    """Return the tiles that some query sees a part of. Costs one transfer of ``end`` to the host."""
    batch, packed = end.shape
    if packed == 0 or batch == 0:
        return []
    block = min(packed, LARGEST, max(SHORTEST, round((SCORES / (batch * heads)) ** 0.5)))
    span = max(2 * SHORTEST, SCORES // (batch * heads * block))
    earliest, latest = end.amin(0).tolist(), end.amax(0).tolist()
    return [
        tile
        for first in range(0, packed, block)
        for start, stop in _spans(min(length, latest[min(first + block, packed) - 1]), span, window)
        if (
            tile := _tile(
                end, earliest, latest, range(first, min(first + block, packed)), start, stop, window
            )
        )
        is not None
    ]


def _spans(length: int, span: int, window: int | None) -> Iterator[tuple[int, int]]:
    """Cut the entries. With a window, the null entry stands alone: it is seen from everywhere."""
    begin = 0 if window is None else 1
    if window is not None:
        yield 0, 1
    for start in range(begin, length, span):
        yield start, min(start + span, length)


def _tile(
    end: Tensor,
    earliest: list[int],
    latest: list[int],
    block: range,
    start: int,
    stop: int,
    window: int | None,
) -> Tile | None:
    """Return the tile cut down to the queries of the block that see a part of it, in any row; None if none
    does. The ends never fall along a row.
    """
    low, high = bisect_right(latest, start, block.start, block.stop), block.stop
    # From the left the queries that came before the tile was full, from the right those for which some of it
    # is too old.
    edge = bisect_left(earliest, stop, low, high)
    if window is not None and start > 0:
        high = bisect_left(earliest, stop + window, low, high)
        edge = high if bisect_right(latest, start + window, low, high) < high else min(edge, high)
    if low == high:
        return None
    return Tile(
        low, high, start, stop, None if edge == low else _hidden(end[:, low:edge, None], start, stop, window)
    )


def _hidden(
    end: Int[Tensor, "batch edge 1"], start: int, stop: int, window: int | None
) -> Bool[Tensor, "batch edge entries"]:
    entry = torch.arange(start, stop, device=end.device)
    hidden = entry >= end
    return hidden if window is None or start == 0 else hidden | (entry < end - window)


def tiled_attention(
    query: Float[Tensor, "batch heads packed d_head"],
    key: Float[Tensor, "batch heads length d_head"],
    value: Float[Tensor, "batch heads length d_head"],
    end: Int[Tensor, "batch packed"],
    *,
    window: int | None = None,
) -> tuple[Float[Tensor, "batch heads packed d_head"], Float[Tensor, "batch heads packed"]]:
    """``y_t = sum_s softmax_s(q_t . k_s) v_s`` and ``log sum_s exp(q_t . k_s)`` of packed queries.

    Gradients flow through both.

    Args:
        query: packed queries, already scaled, each row in the order of its steps.
        key: keys of the memory.
        value: values of the memory.
        end: entries that each query may see come before this index, at least 1 (the null entry).
        window: how many of the latest entries stay visible, the null entry apart; None for all.
    """
    return _Tiled.apply(query, key, value, end, window)


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, end: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor]:
        plan = tiles(end, length=key.shape[2], heads=query.shape[1], window=window)
        output, lse = _forward(query, key, value, plan)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.plan = plan
        return output, lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors
        return *_backward(query, key, value, output, lse, grad, grad_lse, ctx.plan), None, None


def _forward(query: Tensor, key: Tensor, value: Tensor, plan: list[Tile]) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(query.dtype, torch.float32)
    total = torch.zeros(query.shape, dtype=wide, device=query.device)
    norm, highest = total.new_zeros(*query.shape[:3], 1), total.new_full((*query.shape[:3], 1), -torch.inf)
    for tile in plan:
        scores = _scores(query, key, tile).to(wide)
        before, most, sums = (
            highest[:, :, tile.queries],
            scores.amax(-1, keepdim=True),
            norm[:, :, tile.queries],
        )
        # A finite floor: a query that sees nothing of this tile, nor of any before, must not give infinity
        # minus infinity.
        most = torch.maximum(before, most).clamp_min_(torch.finfo(wide).min)
        weights, fade = scores.sub_(most).exp_(), before.sub(most).exp_()
        sums.mul_(fade).add_(weights.sum(-1, keepdim=True))
        total[:, :, tile.queries].mul_(fade).add_(weights.to(value.dtype) @ value[:, :, tile.entries])
        before.copy_(most)
    return (total / norm).to(query.dtype), (highest + norm.log())[..., 0]


def _backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    grad: Tensor,
    grad_lse: Tensor,
    plan: list[Tile],
) -> tuple[Tensor, Tensor, Tensor]:
    grad_query, grad_key, grad_value = (
        torch.zeros(tensor.shape, dtype=lse.dtype, device=lse.device) for tensor in (query, key, value)
    )
    own = (grad.to(lse.dtype) * output.to(lse.dtype)).sum(-1) - grad_lse
    for tile in plan:
        mine, theirs = tile.queries, tile.entries
        weights = _scores(query, key, tile).to(lse.dtype).sub_(lse[:, :, mine, None]).exp_()
        grad_value[:, :, theirs] += weights.to(grad.dtype).mT @ grad[:, :, mine]
        slope = (
            (grad[:, :, mine] @ value[:, :, theirs].mT)
            .to(lse.dtype)
            .sub_(own[:, :, mine, None])
            .mul_(weights)
            .to(query.dtype)
        )
        grad_query[:, :, mine] += slope @ key[:, :, theirs]
        grad_key[:, :, theirs] += slope.mT @ query[:, :, mine]
    return grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype)


def _scores(query: Tensor, key: Tensor, tile: Tile) -> Tensor:
    scores = query[:, :, tile.queries] @ key[:, :, tile.entries].mT
    if tile.hidden is not None:
        scores[:, :, : tile.hidden.shape[1]].masked_fill_(tile.hidden[:, None], -torch.inf)
    return scores
