"""Exploration: some retrievals are computed although no route uses them, so that what is skipped stays known.

    rate = least + (most - least) 4 need (1 - need)        weight = 1 / rate

The gradient of a skipped read is estimated from the explored ones, each counted with its inverse probability:
looking most often where *need* is undecided makes it less noisy at the same number of reads (importance
sampling).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.types import Step


def exploration_rate(
    need: Float[Tensor, "batch time"], *, least: float, most: float = 0.5
) -> Float[Tensor, "batch time"]:
    """Return the probability with which a token that would not read is computed all the same:
    ``least``, and up to ``most`` where *need* is undecided.
    """
    return (
        least + (most - least) * 4 * need.detach() * (1 - need.detach())
        if least < most
        else torch.full_like(need.detach(), least)
    )


def drawn_to_explore(need: Float[Tensor, "batch time"], step: Step) -> Bool[Tensor, "batch time"]:
    """Return which tokens exploration draws: none without noise."""
    if step.noise is None or step.control.exploration == 0:
        return torch.zeros_like(need, dtype=torch.bool)
    return step.noise[..., 3] < exploration_rate(need, least=step.control.exploration)
