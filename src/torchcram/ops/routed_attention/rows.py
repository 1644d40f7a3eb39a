"""Routed attention of one step: sequence by sequence, over views of their entries. For decoding.

A sequence that does not read costs nothing, and nothing is copied: picking the reading sequences by index
would move as many bytes as their reads.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def row_attention(
    query: Float[Tensor, "batch heads rows d_head"],
    key: Float[Tensor, "batch heads length d_head"],
    value: Float[Tensor, "batch heads length d_head"],
    selected: Bool[Tensor, "batch 1"],
    *,
    offset: int | Int[Tensor, " batch"] = 1,
    window: int | None = None,
) -> Float[Tensor, "batch heads rows d_head"]:
    """``y = sum_s softmax_s(q . k_s) v_s`` of a single step, of which a head may have several ``rows``: as
    :func:`torchcram.ops.routed_attention.routed_attention_reference`.
    """
    ends = [offset] * len(query) if isinstance(offset, int) else offset.tolist()
    none = torch.zeros_like(query[:1])
    attended = [
        _one(query[row : row + 1], key[row : row + 1, :, :end], value[row : row + 1, :, :end], window)
        if reads
        else none
        for row, (end, reads) in enumerate(zip(ends, selected[:, 0].tolist(), strict=True))
    ]
    return torch.cat(attended) if attended else torch.zeros_like(query)


def _one(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """Attend to the null entry and to the last ``window`` ones."""
    if window is None or key.shape[2] <= window + 1:
        return scaled_dot_product_attention(query, key, value, scale=1.0).to(query.dtype)
    recent = key[:, :, -window:]
    weight = torch.cat([query @ key[:, :, :1].mT, query @ recent.mT], -1).softmax(-1)
    return (weight[..., :1] * value[:, :, :1] + weight[..., 1:] @ value[:, :, -window:]).to(query.dtype)
