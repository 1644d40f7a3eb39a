"""Averaged weights: smoother than those of any single step, and often better on held-out data (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of a model's parameters.

    Args:
        model: whose parameters; what is no parameter (semantic memory's statistics) is always the model's latest.
        steps: over how many steps it reaches back; a younger average is the mean of all of its steps. 0 or 1 for the latest step alone.
    """

    def __init__(self, model: nn.Module, *, steps: int):
        self.model, self.steps = model, max(1, steps)
        self.restart()

    def restart(self) -> None:
        """Forget the steps so far."""
        self.taken = 0
        self.average: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters of a step."""
        self.taken += 1
        weight = 1 / min(self.taken, self.steps)
        for name, value in self.model.named_parameters():
            # The first weight is one: whatever is averaged into then is gone.
            self.average[name] = self.average.get(name, value).lerp(value, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averaged parameters for a while; nothing changes before the first step."""
        own = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self._set(self.average)
        try:
            yield
        finally:
            self._set(own)

    def keep(self) -> None:
        """Let the model have the averaged parameters for good."""
        self._set(self.average)

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(values.get(name, parameter))
