"""Routed attention in plain PyTorch: gather the selected queries of each row, attend, scatter back. Dense where nearly all are selected."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def routed_attention(
    query: Float[Tensor, "batch heads time d_head"],
    key: Float[Tensor, "batch heads length d_head"],
    value: Float[Tensor, "batch heads length d_head"],
    selected: Bool[Tensor, "batch time"],
    *,
    offset: int | Int[Tensor, " batch"] = 1,
    window: int | None = None,
) -> Float[Tensor, "batch heads time d_head"]:
    """Fast form of :func:`torchcram.ops.routed_attention.routed_attention_reference`: same arguments, same result, same gradients."""
    batch, heads, time, d_head = query.shape
    if isinstance(offset, int) and offset == 1 and window is None and bool(selected.all()):
        # Entry t is what step t - 1 wrote, so "strictly earlier, and the null entry" is the ordinary causal triangle.
        return scaled_dot_product_attention(query, key[:, :, :time], value[:, :, :time], is_causal=True, scale=1.0)
    position, real = pack(selected)
    index = position[:, None, :, None].expand(-1, heads, -1, d_head)
    end = torch.as_tensor(offset, device=position.device).view(-1, 1) + position
    visible = visible_entries(end, key.shape[2], window)[:, None]
    packed = scaled_dot_product_attention(query.gather(2, index), key, value, attn_mask=visible, scale=1.0)
    return torch.zeros_like(query).scatter_add(2, index, packed * real[:, None, :, None])


def pack(selected: Bool[Tensor, "batch time"]) -> tuple[Int[Tensor, "batch packed"], Bool[Tensor, "batch packed"]]:
    """Return the positions of the selected steps, rows padded with unselected ones, and which entries are real."""
    most = int(selected.sum(1).max()) if selected.numel() else 0
    order = torch.sort((~selected).byte(), dim=1, stable=True).indices[:, :most]
    return order, selected.gather(1, order)


def visible_entries(end: Int[Tensor, "batch packed"], length: int, window: int | None) -> Bool[Tensor, "batch packed length"]:
    """Return which memory entries a query may read whose step comes after ``end`` entries."""
    entry = torch.arange(length, device=end.device)
    visible = entry < end[..., None]
    if window is not None:
        visible &= (entry >= end[..., None] - window) | (entry == 0)
    return visible
