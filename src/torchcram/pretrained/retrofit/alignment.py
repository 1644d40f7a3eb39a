"""Padding taken out and put back: each sequence's real tokens stand at the left while a layer works.

So nothing else has to know of padding, and a padded sequence gets exactly what it gets alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where the real tokens of a pass stand.

    Attributes:
        order: positions of the real tokens, then those of padding, each in order; None if nothing is padded.
        count: real tokens of each sequence.
    """

    order: Int[Tensor, "batch time"] | None
    count: Int[Tensor, " batch"]

    def gathered(self, states: Shaped[Tensor, "batch *axes time width"]) -> Tensor:
        """Return the states with each sequence's real tokens at the left; time is the last axis but one."""
        return states if self.order is None else states.gather(-2, self._index(self.order, states))

    def scattered(self, states: Shaped[Tensor, "batch *axes time width"]) -> Tensor:
        """Undo :meth:`gathered`; padding gets zeros."""
        if self.order is None:
            return states
        kept = self.real[(slice(None), *[None] * (states.ndim - 3), slice(None), None)]
        return torch.zeros_like(states).scatter(
            -2, self._index(self.order, states), states.masked_fill(~kept, 0.0)
        )

    @property
    def real(self) -> Bool[Tensor, "batch time"]:
        """Which of the gathered tokens are real."""
        assert self.order is not None, "without padding all tokens are real"
        return torch.arange(self.order.shape[1], device=self.order.device) < self.count[:, None]

    @staticmethod
    def _index(order: Tensor, states: Tensor) -> Tensor:
        return order[(slice(None), *[None] * (states.ndim - 3), slice(None), None)].expand(states.shape)


def alignment_of(
    mask: Bool[Tensor, "batch time"] | None, *, batch: int, time: int, device: torch.device
) -> Alignment:
    """Return where real tokens stand.

    Args:
        mask: False on padding; None if nothing is padded.
        batch: sequences of the pass.
        time: its tokens, padding included.
        device: of its tensors.
    """
    if mask is None or bool(mask.all()):
        return Alignment(order=None, count=torch.full((batch,), time, device=device))
    order = torch.sort((~mask).byte(), dim=1, stable=True).indices
    return Alignment(order=order, count=mask.sum(1))
