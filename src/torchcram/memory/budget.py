"""A budget of reads, enforced causally: a bucket that every token fills a little, and every read empties by
one.

After each token, the reads of its sequence so far are at most what the budget allows for the tokens so far.
Who comes first reads first; a read that the bucket cannot pay is not made. What is saved up stays in the
bucket. It is *not* calibrated: it bounds the cost, whatever that does to the quality.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from torchcram.types import ReadBudget


def allowance(budget: ReadBudget, tokens: Int[Tensor, "*steps"]) -> Int[Tensor, "*steps"]:
    """Return how many reads are allowed by the time that so many tokens have come."""
    if budget.tokens is not None:
        return torch.full_like(tokens, budget.tokens)
    assert budget.ratio is not None, "a risk tolerance moves thresholds, it buys no reads"
    # A share such as 0.29 of 100 tokens is 29 of them, whatever floating point makes of it.
    return torch.floor(tokens.double() * budget.ratio + 1e-9).long()


def affordable(
    budget: ReadBudget,
    wanted: Bool[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"] | None,
    spent: Int[Tensor, "batch 2"],
) -> Bool[Tensor, "batch time"]:
    """Return which of the wanted reads the budget pays for.

    Args:
        budget: a ratio or a number of tokens.
        wanted: tokens whose route is a read.
        mask: False on padding, which fills no bucket.
        spent: each sequence's tokens and reads before these.
    """
    real = torch.ones_like(wanted) if mask is None else mask
    before = spent[:, 1:]
    # A sequence that spent more under a laxer budget reads nothing until the bucket is full again.
    bound = torch.maximum(allowance(budget, spent[:, :1] + real.long().cumsum(1)), before)
    asked = (wanted & real).long().cumsum(1)
    # Reads after each token: min(reads before + 1 if wanted, bound), unrolled. The bound never falls.
    reads = asked + torch.minimum(before, (bound - asked).cummin(1).values)
    return torch.diff(reads, dim=1, prepend=before) > 0


def counted(
    spent: Int[Tensor, "batch 2"] | None,
    read: Bool[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"] | None,
) -> Int[Tensor, "batch 2"]:
    """Return each sequence's tokens and reads after these; ``spent`` are those before, None for none."""
    real = torch.ones_like(read) if mask is None else mask
    added = torch.stack([real.sum(1), (read & real).sum(1)], 1)
    return added if spent is None else spent + added
