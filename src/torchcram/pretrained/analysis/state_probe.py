"""A probe with a memory of fixed size: the input of this token, a summary of the inputs before it, and what
the block itself finds nearby.

Attention reads the context; a linear function of one token cannot know it. Two preceding inputs, two fading
averages and the average of all so far, each projected to a few directions, cost the same at every length of
the context, and so does attention on a buffer of fixed size: they are no read of the context. The directions
are those from which the plain probe predicts most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.analysis.moments import Covariances
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.local_attention import LocalAttention

LAGS = (1, 2)
DECAYS = (0.8, 0.97)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Features of a window: its inputs, then the projected summaries of what came before, then the outputs of
    attention on a buffer.

    Attributes:
        directions: may be empty: then there are no summaries.
        local: the block on a buffer, or None.
    """

    directions: Float[Tensor, "inputs directions"]
    local: LocalAttention | None = None

    @property
    def features(self) -> int:
        """Number of features."""
        inputs, directions = self.directions.shape
        return inputs * (1 if self.local is None else 2) + (len(LAGS) + len(DECAYS) + 1) * directions

    def __call__(self, x: Float[Tensor, "tokens inputs"]) -> Float[Tensor, "tokens features"]:
        """Return the features of the tokens of one window, in order. None looks at a later token."""
        nearby = [] if self.local is None else [self.local(x).to(self.directions.dtype)]
        return torch.cat(
            (x.to(self.directions.dtype), *self._before(x.to(self.directions.dtype)), *nearby), 1
        )

    def _before(self, x: Float[Tensor, "tokens inputs"]) -> list[Tensor]:
        """The summaries."""
        if self.directions.shape[1] == 0:
            return []
        short = x @ self.directions
        before = torch.cat((torch.zeros_like(short[:1]), short[:-1]))
        lagged = [torch.cat((torch.zeros_like(short[:lag]), short[:-lag]))[: len(short)] for lag in LAGS]
        fading = [_fading(len(short), decay, like=short) @ before for decay in DECAYS]
        count = torch.arange(1, len(short) + 1, dtype=short.dtype, device=short.device)
        return [*lagged, *fading, short.cumsum(0) / count[:, None]]


def _fading(tokens: int, decay: float, *, like: Tensor) -> Float[Tensor, "tokens tokens"]:
    """The matrix that turns a sequence into its fading averages."""
    place = torch.arange(tokens, dtype=like.dtype, device=like.device)
    age = place[:, None] - place
    return torch.where(age >= 0, (1 - decay) * decay ** age.clamp(min=0), 0.0)


def summary_of(probe: LinearProbe, fit: Covariances, *, directions: int) -> Summary:
    """Return the summary along the directions of the input from which a probe predicts most of the
    outputs' variance.
    """
    values, basis = torch.linalg.eigh(fit.xx)
    root = basis * values.clamp(min=0).sqrt()
    left, _, _ = torch.linalg.svd(root.T @ probe.weight, full_matrices=False)
    chosen = basis / values.clamp(min=1e-12 * float(values[-1])).sqrt() @ left[:, :directions]
    return Summary(directions=chosen.float())


@dataclass(frozen=True, kw_only=True)
class StateProbe:
    """A linear probe on the features of a summary."""

    summary: Summary
    linear: LinearProbe

    def __call__(self, x: Float[Tensor, "tokens inputs"]) -> Float[Tensor, "tokens outputs"]:
        """Return the prediction for the tokens of one window, in order."""
        return self.linear(self.summary(x))
