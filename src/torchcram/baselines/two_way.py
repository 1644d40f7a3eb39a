"""The decision of a mixer without semantic memory: a token reads, or it does not."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.types import Route, RoutingDecision


def two_way_decision(
    read: Bool[Tensor, "batch time"],
    probability: Float[Tensor, "batch time"],
    *,
    written: Bool[Tensor, "batch time"] | None = None,
) -> RoutingDecision:
    """Return EPISODIC where ``read``, WORKING elsewhere; nothing is explored, nothing is asked.

    Args:
        read: tokens that read.
        probability: of a read, in [0, 1]; of a mixer without a router: one where it reads.
        written: tokens whose keys and values are in memory; None for all.
    """
    nobody = torch.zeros_like(read)
    return RoutingDecision(
        route=torch.where(read, int(Route.EPISODIC), int(Route.WORKING)),
        probabilities=torch.stack([1 - probability, torch.zeros_like(probability), probability], -1),
        familiarity=torch.zeros_like(probability),
        explored=nobody,
        weight=read.to(probability.dtype),
        asked=nobody,
        written=written,
    )
