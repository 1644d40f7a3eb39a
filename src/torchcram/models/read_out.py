"""What a head reads of a sequence: its last real step, or beside it mean and greatest of all real steps.

    last = x_T,   pooled = [x_T, mean_t x_t, max_t x_t]

A pooled head need not wait for what was seen early to be carried to the end.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.types import Head

# Times the width of the model that a pooled head reads.
POOLED = 3


def width_read(head: Head, d_model: int) -> int:
    """Return how many features a head reads."""
    return POOLED * d_model if head.per == "sequence" and head.pooled else d_model


def last_step(
    steps: Float[Tensor, "batch time d_model"], mask: Bool[Tensor, "batch time"] | None
) -> Float[Tensor, "batch d_model"]:
    """Return the last real step of each sequence; of one that is all padding, its first."""
    if mask is None:
        return steps[:, -1]
    return steps[torch.arange(len(steps), device=steps.device), mask.long().sum(1).clamp_min(1) - 1]


def pooled(
    steps: Float[Tensor, "batch time d_model"],
    mask: Bool[Tensor, "batch time"] | None,
    last: Float[Tensor, "batch d_model"],
) -> Float[Tensor, "batch features"]:
    """Return ``last``, and mean and greatest of each channel over the real steps.

    Of a sequence that is all padding the first step counts as real.
    """
    if mask is None:
        return torch.cat([last, steps.mean(1), steps.amax(1)], -1)
    real = mask.clone()
    real[:, 0] |= ~mask.any(1)
    mean = (steps * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    greatest = steps.masked_fill(~real[..., None], -torch.inf).amax(1)
    return torch.cat([last, mean.to(steps.dtype), greatest], -1)
