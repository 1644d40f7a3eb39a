"""Routed attention without routing: every query attends, and the selected ones are kept.

For export, where no shape may depend on the data.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from torchcram.ops.routed_attention.packing import visible_entries


def dense_attention(
    query: Float[Tensor, "batch heads time d_head"],
    key: Float[Tensor, "batch kv_heads length d_head"],
    value: Float[Tensor, "batch kv_heads length d_head"],
    selected: Bool[Tensor, "batch time"],
    *,
    offset: int | Int[Tensor, " batch"] = 1,
    window: int | None = None,
) -> Float[Tensor, "batch heads time d_head"]:
    """``selected_t sum_s softmax_s(q_t . k_s) v_s``: as
    :func:`torchcram.ops.routed_attention.routed_attention_reference`.
    """
    end = torch.as_tensor(offset, device=query.device).view(-1, 1) + torch.arange(
        query.shape[2], device=query.device
    )
    visible = visible_entries(end, key.shape[2], window)[:, None]
    return (
        scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=1.0, enable_gqa=True)
        * selected[:, None, :, None]
    )
