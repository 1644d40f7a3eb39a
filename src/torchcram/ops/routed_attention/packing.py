"""Selected steps, packed to the left of each row; and heads that share keys, laid side by side as if they
were steps.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


def pack(
    selected: Bool[Tensor, "batch time"],
) -> tuple[Int[Tensor, "batch packed"], Bool[Tensor, "batch packed"]]:
    """Return the positions of the selected steps, rows padded with unselected ones, and which entries are
    real.
    """
    most = int(selected.sum(1).max()) if selected.numel() else 0
    order = torch.sort((~selected).byte(), dim=1, stable=True).indices[:, :most]
    return order, selected.gather(1, order)


def visible_entries(
    end: Int[Tensor, "batch packed"], length: int, window: int | None
) -> Bool[Tensor, "batch packed length"]:
    """Return which memory entries a query may read whose step comes after ``end`` entries."""
    entry = torch.arange(length, device=end.device)
    visible = entry < end[..., None]
    if window is not None:
        visible &= (entry >= end[..., None] - window) | (entry == 0)
    return visible


def grouped(
    query: Float[Tensor, "batch heads packed d_head"], key: Float[Tensor, "batch kv_heads length d_head"]
) -> Float[Tensor, "batch kv_heads rows d_head"]:
    """Return the queries of all heads that share a head of keys as rows of that head, step by step: the order
    of the steps stays.

    Raises:
        ValueError: if the query heads cannot be shared out evenly.
    """
    batch, heads, packed, size = query.shape
    shared = key.shape[1]
    if shared == 0 or heads % shared:
        raise ValueError(
            f"{heads} query heads cannot share {shared} heads of keys: one number must divide the other"
        )
    return (
        query
        if heads == shared
        else query.unflatten(1, (shared, -1)).transpose(2, 3).reshape(batch, shared, -1, size)
    )


def ungrouped(
    rows: Shaped[Tensor, "batch kv_heads rows width"], query: Shaped[Tensor, "batch heads packed d_head"]
) -> Shaped[Tensor, "batch heads packed width"]:
    """Undo :func:`grouped`: return what was found for each row where the query of that row stands in
    ``query``.
    """
    batch, heads, packed, _ = query.shape
    shared = rows.shape[1]
    return (
        rows
        if heads == shared
        else rows.unflatten(2, (packed, heads // shared))
        .transpose(2, 3)
        .reshape(batch, heads, packed, rows.shape[3])
    )


def repeated(end: Int[Tensor, "batch packed"], query: Tensor, key: Tensor) -> Int[Tensor, "batch rows"]:
    """Return the ends of :func:`grouped` queries."""
    return end.repeat_interleave(query.shape[1] // key.shape[1], 1)
