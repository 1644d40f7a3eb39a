"""Routed attention as library calls: packed queries, a mask over the memory.

Best for short memories, for narrow heads, and on accelerators.

Packed queries stand in the order of their steps. So a block of them need not see the whole memory, only as
far as its last query does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from torchcram.ops.routed_attention.packing import visible_entries


def gathered_attention(
    query: Float[Tensor, "batch heads packed d_head"],
    key: Float[Tensor, "batch heads length d_head"],
    value: Float[Tensor, "batch heads length d_head"],
    end: Int[Tensor, "batch packed"],
    *,
    window: int | None = None,
    block: int | None = None,
) -> Float[Tensor, "batch heads packed d_head"]:
    """``y_t = sum_s softmax_s(q_t . k_s) v_s`` of packed queries.

    Args:
        query: packed queries, already scaled, each row in the order of its steps.
        key: keys of the memory.
        value: values of the memory.
        end: entries that each query may see come before this index, at least 1 (the null entry).
        window: how many of the latest entries stay visible, the null entry apart; None for all.
        block: queries of each call; None for one call over the whole memory.
    """
    if block is None or query.shape[2] <= block:
        return _attend(query, key, value, end, window)
    outputs = []
    for part, ends in zip(query.split(block, 2), end.split(block, 1), strict=True):
        last = int(ends.max()) if ends.numel() else 0
        outputs.append(_attend(part, key[:, :, :last], value[:, :, :last], ends, window))
    return torch.cat(outputs, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, end: Tensor, window: int | None) -> Tensor:
    return scaled_dot_product_attention(
        query, key, value, attn_mask=visible_entries(end, key.shape[2], window)[:, None], scale=1.0
    )
