"""A router that draws lots, so that a question's read rate is what it says: untrained routers would decide
something else.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcram.memory.block import CRAMBlock
from torchcram.memory.router import Router
from torchcram.types import Route, Step


class DrawnRouter(Router):
    """A router that draws lots: a share of the tokens reads, the others need nothing.

    It takes the place of a block's own router.

    Args:
        rate: share of the tokens that read.
        generator: of the draws, on the CPU.
    """

    def __init__(self, rate: float, generator: torch.Generator):
        super().__init__()
        self.rate, self.generator = rate, generator

    def need(
        self, hidden_states: Float[Tensor, "batch time d_model"], step: Step
    ) -> Float[Tensor, "batch time"]:
        """Return one for the tokens that are drawn, zero for the others."""
        del step
        return (torch.rand(hidden_states.shape[:2], generator=self.generator) < self.rate).to(hidden_states)

    def choose(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        familiarity: Float[Tensor, "batch time"],
        step: Step,
    ) -> tuple[Float[Tensor, "batch time 3"], Int[Tensor, "batch time"]]:
        """Let the drawn ones read."""
        del hidden_states, familiarity, step
        route = torch.where(need > 0.5, int(Route.EPISODIC), int(Route.WORKING))
        return torch.stack([1 - need, torch.zeros_like(need), need], -1), route

    def credit(
        self, probabilities: Float[Tensor, "batch time 3"]
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Return what the gradients of retrieval and answer move: nothing that learns."""
        return probabilities[..., Route.EPISODIC], probabilities[..., Route.SEMANTIC]


def force(block: CRAMBlock, rate: float, generator: torch.Generator) -> None:
    """Let lots decide what a block reads."""
    block.router = cast(Any, DrawnRouter(rate, generator))
