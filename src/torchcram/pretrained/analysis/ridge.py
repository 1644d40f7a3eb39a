"""Ridge regression from sufficient statistics: the strength is chosen on held-out statistics, the error on a
third set is closed form, too.

A strength ``s`` stands for scikit-learn's ``alpha = s * count``. Ranks are those of the best predictions of a
given rank (reduced-rank regression).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from torchcram.pretrained.analysis.moments import Covariances

# Strengths as shares of the mean variance of an input channel.
GRID = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
# Fewer tokens than this for each input channel tell nothing about held-out text.
TOKENS_PER_INPUT = 2


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A linear prediction ``x @ weight + bias``. ``strength`` is that of its ridge."""

    weight: Float[Tensor, "inputs outputs"]
    bias: Float[Tensor, " outputs"]
    strength: float = 0.0

    def __call__(self, x: Float[Tensor, "tokens inputs"]) -> Float[Tensor, "tokens outputs"]:
        """Return the prediction, in the probe's precision."""
        return x.to(self.weight.dtype) @ self.weight + self.bias

    def then(self, weight: Float[Tensor, "outputs width"], bias: Float[Tensor, " width"]) -> LinearProbe:
        """Return the probe of ``y @ weight + bias``."""
        return LinearProbe(
            weight=self.weight @ weight, bias=self.bias @ weight + bias, strength=self.strength
        )

    def float(self) -> LinearProbe:
        """Return the probe in float32, to be used in a model."""
        return LinearProbe(weight=self.weight.float(), bias=self.bias.float(), strength=self.strength)


def require_tokens(tokens: int, inputs: int) -> None:
    """Raise ValueError if a probe of so many inputs would be meaningless."""
    if tokens < TOKENS_PER_INPUT * inputs:
        raise ValueError(
            f"{tokens:,} fit tokens are too few for probes with {inputs:,} inputs: give at least "
            f"{TOKENS_PER_INPUT * inputs:,} (better {100 * inputs:,})"
        )


def solve(fit: Covariances, *, strength: float) -> LinearProbe:
    """Return the ridge solution."""
    penalty = strength * torch.eye(len(fit.xx), dtype=fit.xx.dtype, device=fit.xx.device)
    weight = torch.linalg.solve(fit.xx + penalty, fit.xy)
    return LinearProbe(weight=weight, bias=fit.mean_y - fit.mean_x @ weight, strength=strength)


def chosen_on(
    held: Covariances, fit: Covariances, *, output: Float64[Tensor, "outputs width"] | None = None
) -> LinearProbe:
    """Return the ridge solution whose strength has the least error on held-out text.

    Args:
        held: of the split that chooses.
        fit: of the split that fits.
        output: what the error is measured behind: a projection of the outputs.
    """
    values, basis = torch.linalg.eigh(fit.xx)
    inner = basis.T @ fit.xy
    scale = float(fit.xx.diagonal().mean())
    best: LinearProbe | None = None
    least = float("inf")
    for share in GRID:
        weight = basis @ (
            inner / (values.clamp(min=0) + share * scale + torch.finfo(values.dtype).tiny)[:, None]
        )
        probe = LinearProbe(weight=weight, bias=fit.mean_y - fit.mean_x @ weight, strength=share * scale)
        wrong = error(probe, held, output=output)
        if wrong < least:
            best, least = probe, wrong
    assert best is not None, "a finite covariance has a finite error"
    return best


def error(
    probe: LinearProbe, held: Covariances, *, output: Float64[Tensor, "outputs width"] | None = None
) -> float:
    """Return the squared error per token, behind ``output`` if it is given."""
    return (
        float(channel_errors(probe, held).sum())
        if output is None
        else float((_error_matrix(probe, held) @ output * output).sum())
    )


def channel_errors(probe: LinearProbe, held: Covariances) -> Float64[Tensor, " outputs"]:
    """Return the squared error per token of each output channel."""
    shift = held.mean_y - held.mean_x @ probe.weight - probe.bias
    fitted = (probe.weight * (held.xx @ probe.weight)).sum(0)
    return held.yy.diagonal() - 2 * (probe.weight * held.xy).sum(0) + fitted + shift.square()


def _error_matrix(probe: LinearProbe, held: Covariances) -> Tensor:
    shift = held.mean_y - held.mean_x @ probe.weight - probe.bias
    cross = probe.weight.T @ held.xy
    return held.yy - cross - cross.T + probe.weight.T @ held.xx @ probe.weight + torch.outer(shift, shift)


def explained(probe: LinearProbe, held: Covariances) -> float:
    """Return the share of the outputs' variance that the probe explains on held-out text; below 0 it is
    worse than their mean.
    """
    return 1 - error(probe, held) / float(held.yy.diagonal().sum())


def rank_curve(
    probe: LinearProbe, fit: Covariances, held: Covariances, *, ranks: tuple[int, ...]
) -> dict[int, float]:
    """Return the explained variance of the best predictions of each rank."""
    fitted = probe.weight.T @ fit.xx @ probe.weight
    _, directions = torch.linalg.eigh((fitted + fitted.T) / 2)
    curve = {}
    for rank in ranks:
        top = directions[:, -rank:]
        weight = probe.weight @ top @ top.T
        curve[rank] = explained(LinearProbe(weight=weight, bias=fit.mean_y - fit.mean_x @ weight), held)
    return curve


def canonical_correlations(cov: Covariances, *, floor: float = 1e-9) -> Float64[Tensor, " directions"]:
    """Return the canonical correlations of x and y; directions with less than ``floor`` of the greatest
    variance are left out.
    """
    left, right = _whitener(cov.xx, floor=floor), _whitener(cov.yy, floor=floor)
    return torch.linalg.svdvals(left.T @ cov.xy @ right).clamp(0.0, 1.0)


def _whitener(covariance: Tensor, *, floor: float) -> Tensor:
    values, basis = torch.linalg.eigh(covariance)
    kept = values > floor * values[-1]
    return basis[:, kept] / values[kept].sqrt()


def cca_bound(correlations: Float64[Tensor, " directions"], *, width: int) -> float:
    """Return NBL's bound (arXiv 2505.21077) of the error of a linear replacement, per output channel: 0 is
    perfectly linear, 1 not at all.
    """
    missing = width - len(correlations)
    return float((missing + (1 - correlations.square()).sum()) / width)
