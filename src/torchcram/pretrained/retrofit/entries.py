"""Keys and values in the order of the tokens of each sequence, and where the queries of a pass stand in it.

A layer that reads keeps all of them: the entry of rank ``r`` lies at index ``r``. A layer that never reads
keeps the sinks and the last few: behind the sinks, the index is the rank less a shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

# What a rank adds to a score: of equal scores the newer one is higher, and no two are equal.
NEWER = 1e-13


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Entries that left the window and stay at hand, in no order.

    Attributes:
        key, value: of the entries; zeros where there are none yet.
        score: how notable they are, no two alike; minus infinity where there are none yet.
    """

    key: Float[Tensor, "batch kv_heads kept d_head"]
    value: Float[Tensor, "batch kv_heads kept d_head"]
    score: Float[Tensor, "batch kv_heads kept"]


@dataclass(frozen=True, kw_only=True)
class Entries:
    """What the queries of one pass can look at, themselves among it.

    Attributes:
        key: as they are compared, rotated where the family rotates.
        value: what attention averages.
        past: rank of each sequence's first query.
        shift: ranks that were dropped behind the sinks; zeros if all entries are there.
        sums: of keys and values, side by side, of the entries that had left the window before; in float32 at
            least.
        score: how notable each entry is, no two of a head alike; None where nothing is kept.
        kept: entries that were kept before the first query; None where nothing is.
    """

    key: Float[Tensor, "batch kv_heads length d_head"]
    value: Float[Tensor, "batch kv_heads length d_head"]
    past: Int[Tensor, " batch"]
    shift: Int[Tensor, " batch"]
    sums: Float[Tensor, "batch kv_heads twice"]
    score: Float[Tensor, "batch kv_heads length"] | None = None
    kept: Kept | None = None

    def query_ranks(self, steps: int) -> Int[Tensor, "batch steps"]:
        """Return the ranks of so many queries."""
        return self.past[:, None] + torch.arange(steps, device=self.past.device)

    def index(self, rank: Int[Tensor, "batch *ranks"], *, sinks: int) -> Int[Tensor, "batch *ranks"]:
        """Return where entries lie; an entry that is not there gets some index all the same."""
        shift = self.shift.view(-1, *[1] * (rank.ndim - 1))
        return torch.where(rank < sinks, rank, rank - shift).clamp(0, self.key.shape[2] - 1)

    def ranks(self, *, sinks: int) -> Int[Tensor, "batch length"]:
        """Return the rank of the entry at each index; behind the last entry, ranks of tokens to come."""
        index = torch.arange(self.key.shape[2], device=self.past.device)
        return torch.where(index < sinks, index, index + self.shift[:, None])


def fresh_entries(
    key: Float[Tensor, "batch kv_heads length d_head"],
    value: Float[Tensor, "batch kv_heads length d_head"],
    score: Float[Tensor, "batch kv_heads length"] | None = None,
    *,
    kept: int = 0,
) -> Entries:
    """Return the entries of sequences that begin with this pass.

    Args:
        key: of every token.
        value: of every token.
        score: how notable it is.
        kept: how many entries stay at hand behind the window.
    """
    none = torch.zeros(len(key), dtype=torch.long, device=key.device)
    return Entries(
        key=key,
        value=value,
        past=none,
        shift=none,
        sums=no_sums(key),
        score=None if score is None else ordered(score, torch.arange(key.shape[2], device=key.device)),
        kept=no_kept(key, kept) if kept else None,
    )


def ordered(
    score: Float[Tensor, "batch kv_heads length"], rank: Int[Tensor, "*batch length"]
) -> Float[Tensor, "batch kv_heads length"]:
    """Return scores of which no two of a head are equal: of equal ones, the newer one is higher."""
    return score.detach().to(_widest(score)) + NEWER * (rank if rank.ndim == 1 else rank[:, None])


def _widest(like: Tensor) -> torch.dtype:
    """Apple's chips have no float64: equal scores are in no order there."""
    return torch.float32 if like.device.type == "mps" else torch.float64


def no_kept(key: Float[Tensor, "batch kv_heads length d_head"], count: int) -> Kept:
    """Return room for kept entries, with nothing in it."""
    empty = key.new_zeros(*key.shape[:2], count, key.shape[3])
    score = torch.full(empty.shape[:3], -torch.inf, dtype=_widest(key), device=key.device)
    return Kept(key=empty, value=torch.zeros_like(empty), score=score)


def no_sums(
    key: Float[Tensor, "batch kv_heads length d_head"],
) -> Float[Tensor, "batch kv_heads twice"]:
    """Return the sums over no entries."""
    wide = torch.promote_types(key.dtype, torch.float32)
    return key.new_zeros(*key.shape[:2], 2 * key.shape[3], dtype=wide)


def taken(
    tensor: Shaped[Tensor, "batch heads length d_head"], index: Int[Tensor, "batch chosen"]
) -> Shaped[Tensor, "batch heads chosen d_head"]:
    """Return the entries of each sequence at its own indices."""
    return tensor.gather(2, index[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3]))
