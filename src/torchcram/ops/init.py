"""Initial weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def small_start(output: nn.Linear, *, scale: float = 0.2) -> None:
    """Shrink the initial weights of a projection into the residual stream.

    A young memory's output is noise to everything behind it; started small, it does not drown the addresses
    that retrieval needs.
    """
    output.weight.mul_(scale)
