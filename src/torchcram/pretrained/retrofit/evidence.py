"""What is at hand about a token without a read: its state, what it found nearby, its query, how much lies
beyond, and the gist of that.

Semantic memory predicts the remote part from it, the router decides from it. Features are standardised and
bounded: a few channels of pretrained models are thousands of times larger than the others (Dettmers et al.
2022, arXiv 2208.07339), and a prediction must not follow them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcram.pretrained.retrofit.parts import Part

# Features lie within so many standard deviations.
BOUND = 6.0
TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """About some steps: of a whole pass, or chosen ones one after the other.

    Attributes:
        hidden: input of the attention block.
        near: the near part.
        address: queries before rotation, scaled.
        remote: how many tokens lie beyond the near ones.
        gist_value: mean value of what has left the window, for each head.
        gist_score: score of its mean key.
    """

    hidden: Float[Tensor, "*steps width"]
    near: Part
    address: Float[Tensor, "*steps heads d_head"]
    remote: Int[Tensor, "*steps"]
    gist_value: Float[Tensor, "*steps heads d_head"]
    gist_score: Float[Tensor, "*steps heads"]

    def chosen(self, steps: Bool[Tensor, "*steps"]) -> Evidence:
        """Return the evidence about some steps."""
        near = Part(value=self.near.value[steps], log_mass=self.near.log_mass[steps])
        plain = {
            field.name: getattr(self, field.name)[steps] for field in fields(self) if field.name != "near"
        }
        return Evidence(near=near, **plain)

    def features(self) -> Float[Tensor, "*steps features"]:
        """Return state, near values of all heads, near log-masses, scores of the gist and the logarithm of
        the number of remote tokens.
        """
        wide = self.near.log_mass.dtype
        parts = (
            self.hidden,
            self.near.value.flatten(-2),
            self.near.log_mass,
            self.gist_score,
            self.remote.log1p()[..., None],
        )
        return torch.cat([part.to(wide) for part in parts], -1)


def feature_count(*, width: int, heads: int, head_size: int) -> int:
    """Return the number of features."""
    return width + heads * (head_size + 2) + 1


class Standard(nn.Module):
    """Standardised, bounded features.

    Args:
        features: how many.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, features: Float[Tensor, "*steps features"]) -> Float[Tensor, "*steps features"]:
        """Return them with mean 0 and standard deviation 1 on the fitted text, within :data:`BOUND`."""
        # In place: long passes are bound by memory, and the difference is nobody else's.
        return (features - self.mean).mul_(self.scale).clamp_(-BOUND, BOUND)

    @torch.no_grad()
    def set(self, mean: Float[Tensor, " features"], deviation: Float[Tensor, " features"]) -> None:
        """Take over means and standard deviations."""
        self.mean.copy_(mean)
        self.scale.copy_(1 / deviation.clamp_min(TINY))
