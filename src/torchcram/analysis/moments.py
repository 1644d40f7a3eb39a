"""Streaming sufficient statistics of pairs (x, y) in float64: all that ridge regression, its error on held-out data, and canonical correlations need.

Their size depends on the widths alone, never on the number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(kw_only=True)
class Moments:
    """Sums over tokens.

    Attributes:
        count: number of tokens.
        x, y: sums.
        xx, xy, yy: sums of products.
    """

    count: int
    x: Float64[Tensor, " inputs"]
    y: Float64[Tensor, " outputs"]
    xx: Float64[Tensor, "inputs inputs"]
    xy: Float64[Tensor, "inputs outputs"]
    yy: Float64[Tensor, "outputs outputs"]

    def add(self, x: Float[Tensor, "tokens inputs"], y: Float[Tensor, "tokens outputs"]) -> None:
        """Take in some tokens."""
        x, y = x.double(), y.double()
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx.addmm_(x.T, x)
        self.xy.addmm_(x.T, y)
        self.yy.addmm_(y.T, y)

    def finite(self) -> bool:
        """Whether no value overflowed so far."""
        return bool(torch.isfinite(self.x).all() and torch.isfinite(self.y).all() and torch.isfinite(self.yy.diagonal()).all())

    def tensors(self) -> dict[str, Tensor]:
        """Return the content as tensors, for a file."""
        return {name: getattr(self, name) for name in ("x", "y", "xx", "xy", "yy")} | {"count": torch.tensor(self.count)}


def no_moments(inputs: int, outputs: int, *, device: torch.device | None = None) -> Moments:
    """Return the sums over no tokens."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    return Moments(count=0, x=zeros(inputs), y=zeros(outputs), xx=zeros(inputs, inputs), xy=zeros(inputs, outputs), yy=zeros(outputs, outputs))


def moments_from(tensors: dict[str, Tensor]) -> Moments:
    """Return what :meth:`Moments.tensors` gave."""
    return Moments(count=int(tensors["count"]), **{name: tensors[name] for name in ("x", "y", "xx", "xy", "yy")})


@dataclass(frozen=True, kw_only=True)
class Covariances:
    """Means and covariances (divided by the number of tokens)."""

    count: int
    mean_x: Float64[Tensor, " inputs"]
    mean_y: Float64[Tensor, " outputs"]
    xx: Float64[Tensor, "inputs inputs"]
    xy: Float64[Tensor, "inputs outputs"]
    yy: Float64[Tensor, "outputs outputs"]

    def mapped(self, weight: Float64[Tensor, "outputs width"], bias: Float64[Tensor, " width"]) -> Covariances:
        """Return those of ``(x, y @ weight + bias)``."""
        return Covariances(
            count=self.count, mean_x=self.mean_x, mean_y=self.mean_y @ weight + bias, xx=self.xx, xy=self.xy @ weight, yy=weight.T @ self.yy @ weight
        )


def covariances(moments: Moments) -> Covariances:
    """Return means and covariances.

    Raises:
        ValueError: if there are no tokens.
    """
    if moments.count == 0:
        raise ValueError("no tokens were seen")
    n, mean_x, mean_y = moments.count, moments.x / moments.count, moments.y / moments.count
    return Covariances(
        count=n,
        mean_x=mean_x,
        mean_y=mean_y,
        xx=moments.xx / n - torch.outer(mean_x, mean_x),
        xy=moments.xy / n - torch.outer(mean_x, mean_y),
        yy=moments.yy / n - torch.outer(mean_y, mean_y),
    )
