"""Second lessons from the same series, for when labels are few: what is observed next, what was hidden, and
the label again at every step.

A stay has one label and hundreds of observations. A model that must also say what comes next learns of every
step what it cannot learn by heart from labels: forecasts as self-supervision of clinical series are those of
STraTS (Tipirneni and Reddy 2022, arXiv 2107.14293), reconstructions those of mTAND (Shukla and Marlin 2021,
arXiv 2101.10318), the label at every step is target replication (Lipton et al. 2016, arXiv 1511.03677).
Values are as the model sees them, NaN where nothing is to be said. Forecasts are for models that look at the
past alone: one that sees the whole series would only copy. For such a one there is what was hidden from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.types import Head

FORECAST, RESTORE = "forecast", "restore"


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """Weights of the side heads in the loss; 0 for none.

    Attributes:
        forecast: what is observed at the next step.
        restore: what was hidden.
        replicate: what each head per sequence says, at every step.
    """

    forecast: float = 0.0
    restore: float = 0.0
    replicate: float = 0.0

    def heads(self, variables: int, own: Sequence[Head]) -> tuple[Head, ...]:
        """Return the heads of a task with so many variables, and heads of its own per sequence."""
        weights = {FORECAST: self.forecast, RESTORE: self.restore}
        values = [
            Head(name=name, kind="regression", size=variables, per="step", weight=weight)
            for name, weight in weights.items()
            if weight
        ]
        again = [
            replace(
                head,
                name=replicated(head.name),
                per="step",
                weight=self.replicate * head.weight,
                pooled=False,
            )
            for head in own
            if self.replicate
        ]
        return (*values, *again)


NO_LESSONS = Lessons()


def replicated(name: str) -> str:
    """Return the name of the head that says at every step what another says of the sequence."""
    return f"{name}_at_each_step"


def forecast_targets(
    observed: Float[Tensor, "batch time variables"],
) -> Float[Tensor, "batch time variables"]:
    """Return what is observed at the step after each one; nothing is after the last."""
    return torch.cat([observed[:, 1:], torch.full_like(observed[:, :1], torch.nan)], 1)


def restore_targets(
    observed: Float[Tensor, "batch time variables"], kept: Bool[Tensor, "batch time variables"]
) -> Float[Tensor, "batch time variables"]:
    """Return what was observed, and is hidden from the model."""
    return observed.masked_fill(kept, torch.nan)


def replicate_targets(target: Tensor, steps: int) -> Tensor:
    """Return the targets ``[batch, ...]`` of sequences as those of their steps, ``[batch, steps, ...]``;
    steps of padding are scored nowhere.
    """
    return target[:, None].expand(-1, steps, *target.shape[1:]).clone()
