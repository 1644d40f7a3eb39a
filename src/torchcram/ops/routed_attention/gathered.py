"""Routed attention as one library call: packed queries, a mask over the whole memory. Best for short memories, and on accelerators."""

from __future__ import annotations

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
) -> Float[Tensor, "batch heads packed d_head"]:
    """Return the outputs of packed queries; arguments as in :func:`torchcram.ops.routed_attention.tiled.tiled_attention`."""
    visible = visible_entries(end, key.shape[2], window)[:, None]
    return scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=1.0)
