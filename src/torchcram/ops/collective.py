"""Sums over all processes of a distributed run; the identity when there is one process only."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Inexact, Num
from torch import Tensor


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def world_sum(values: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """Return the sum of ``values`` over all processes, on each of them; no gradient."""
    values = values.detach().clone()
    if _several():
        dist.all_reduce(values)
    return values


@torch.no_grad()
def world_concat(rows: Inexact[Tensor, "rows *rest"], most: int) -> Inexact[Tensor, "all_rows *rest"]:
    """Return the first ``most`` rows of each process, joined in the order of the processes."""
    rows = rows[:most]
    if not _several():
        return rows
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, padded)
    counts = world_sum(
        torch.nn.functional.one_hot(torch.tensor(dist.get_rank(), device=rows.device), len(parts)).double()
        * len(rows)
    )
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def world_mean(total: Inexact[Tensor, ""], count: Inexact[Tensor, ""]) -> Inexact[Tensor, ""]:
    """``total / count``, so that the average over processes of its gradient is that of ``sum of totals / sum
    of counts``.
    """
    world = dist.get_world_size() if _several() else 1
    return total * world / world_sum(count).clamp_min(1e-9)


def step_mean(
    values: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"] | None
) -> Float[Tensor, ""]:
    """``sum(values mask) / sum(mask)``: the mean over the real steps, or over all without a mask."""
    return values.mean() if mask is None else world_mean((values * mask).sum(), mask.sum().to(values.dtype))
