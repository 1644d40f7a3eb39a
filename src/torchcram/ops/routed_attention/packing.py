"""Selected steps, packed to the left of each row."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


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
