"""Streaming sufficient statistics of pairs (x, y) in float64: all that ridge regression, its error on
held-out data, and canonical correlations need.

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
        xy: sums of products.
        squares: sums of products of x with itself, below the diagonal and shifted down by a row, and of y
            with itself, above: symmetric matrices need half of their room, and of all that is kept these are
            the largest.
    """

    count: int
    x: Float64[Tensor, " inputs"]
    y: Float64[Tensor, " outputs"]
    xy: Float64[Tensor, "inputs outputs"]
    squares: Float64[Tensor, "rows larger"]

    def add(self, x: Float[Tensor, "tokens inputs"], y: Float[Tensor, "tokens outputs"]) -> None:
        """Take in some tokens."""
        x, y = x.double(), y.double()
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xy.addmm_(x.T, y)
        self.squares[1 : x.shape[1] + 1, : x.shape[1]] += (x.T @ x).tril_()
        self.squares[: y.shape[1], : y.shape[1]] += (y.T @ y).triu_()

    @property
    def xx(self) -> Float64[Tensor, "inputs inputs"]:
        """Sums of products of x with itself."""
        lower = self.squares[1 : len(self.x) + 1, : len(self.x)].tril()
        return lower + lower.tril(-1).T

    @property
    def yy(self) -> Float64[Tensor, "outputs outputs"]:
        """Sums of products of y with itself."""
        upper = self.squares[: len(self.y), : len(self.y)].triu()
        return upper + upper.triu(1).T

    def finite(self) -> bool:
        """Whether no value overflowed so far."""
        return bool(
            torch.isfinite(self.x).all()
            and torch.isfinite(self.y).all()
            and torch.isfinite(self.squares).all()
        )


def no_moments(inputs: int, outputs: int, *, device: torch.device | None = None) -> Moments:
    """Return the sums over no tokens."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    larger = max(inputs, outputs)
    return Moments(
        count=0,
        x=zeros(inputs),
        y=zeros(outputs),
        xy=zeros(inputs, outputs),
        squares=zeros(larger + 1, larger),
    )


@dataclass(frozen=True, kw_only=True)
class Covariances:
    """Means and covariances (divided by the number of tokens)."""

    count: int
    mean_x: Float64[Tensor, " inputs"]
    mean_y: Float64[Tensor, " outputs"]
    xx: Float64[Tensor, "inputs inputs"]
    xy: Float64[Tensor, "inputs outputs"]
    yy: Float64[Tensor, "outputs outputs"]

    def mapped(
        self, weight: Float64[Tensor, "outputs width"], bias: Float64[Tensor, " width"]
    ) -> Covariances:
        """Return those of ``(x, y @ weight + bias)``."""
        return Covariances(
            count=self.count,
            mean_x=self.mean_x,
            mean_y=self.mean_y @ weight + bias,
            xx=self.xx,
            xy=self.xy @ weight,
            yy=weight.T @ self.yy @ weight,
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
