"""Semantic memory in closed form: what the gist says first, then ridge regression of what it leaves, with the
strengths among which harm on other text chooses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.retrofit.moments import RemoteMoments
from torchcram.pretrained.retrofit.semantic import LinearRemote, LowRankRemote, SemanticMemory

# Strengths of the ridge, as shares of the mean weighted square of a standardised feature.
STRENGTHS = (0.03, 0.3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Solutions:
    """Ridge solutions of one layer.

    Attributes:
        share, slope: of the gist, for each head.
        weight: for each strength, of the features, with the bias in the last row.
        strengths: of the solutions.
        basis: directions of the features in which they vary most, first the most.
    """

    share: Float[Tensor, " heads"]
    slope: Float[Tensor, " heads"]
    weight: Float[Tensor, "strengths inputs outputs"]
    strengths: tuple[float, ...]
    basis: Float[Tensor, "features directions"]

    @torch.no_grad()
    def give(self, memory: SemanticMemory, number: int) -> None:
        """Put one solution into a memory; a memory with a bottleneck gets the best of its rank."""
        memory.gist_share.copy_(self.share)
        memory.gist_slope.copy_(self.slope)
        set_map(memory, self.weight[number])


@torch.no_grad()
def map_of(memory: SemanticMemory) -> Float[Tensor, "inputs outputs"]:
    """Return the map from standardised features, with the bias in the last row.

    Raises:
        ValueError: for a kind that has no closed form.
    """
    if isinstance(memory, LinearRemote):
        return torch.cat((memory.map.weight.T, memory.map.bias[None]))
    if isinstance(memory, LowRankRemote):
        return torch.cat((memory.down.weight.T @ memory.up.weight.T, memory.up.bias[None]))
    raise ValueError("semantic memory of kind slots has no closed form: choose kind linear or low_rank")


@torch.no_grad()
def set_map(memory: SemanticMemory, weight: Float[Tensor, "inputs outputs"]) -> None:
    """Undo :func:`map_of`; a memory with a bottleneck gets the best of its rank."""
    if isinstance(memory, LinearRemote):
        memory.map.weight.copy_(weight[:-1].T)
        memory.map.bias.copy_(weight[-1])
        return
    assert isinstance(memory, LowRankRemote), "only maps are fitted"
    down, up = narrowed(weight[:-1], memory.down.out_features)
    memory.down.weight.copy_(down.T)
    memory.up.weight.copy_(up.T)
    memory.up.bias.copy_(weight[-1])


def solutions(
    moments: RemoteMoments, *, strengths: tuple[float, ...] = STRENGTHS, directions: int = 0
) -> Solutions:
    """Solve for every strength.

    Args:
        moments: of the fit text.
        strengths: to try.
        directions: of the basis.
    """
    share, slope = moments.gist_factors()
    xx, target = moments.xx.double(), _residual(moments, share, slope).double()
    # The bias is free: it is taken out by the means, and put back.
    total = xx[-1, -1].clamp(min=1e-12)
    mean_x, mean_y = xx[:-1, -1] / total, target[-1] / total
    centred = xx[:-1, :-1] - total * torch.outer(mean_x, mean_x)
    cross = target[:-1] - total * torch.outer(mean_x, mean_y)
    values, basis = torch.linalg.eigh(centred)
    inner, scale = basis.T @ cross, values.clamp(min=0).mean().clamp(min=1e-12)
    weights = []
    for strength in strengths:
        weight = basis @ (inner / (values.clamp(min=0) + strength * scale)[:, None])
        weights.append(torch.cat((weight, (mean_y - mean_x @ weight)[None])))
    return Solutions(
        share=share,
        slope=slope,
        weight=torch.stack(weights).float(),
        strengths=strengths,
        basis=basis.flip(1)[:, :directions].float(),
    )


def _residual(moments: RemoteMoments, share: Tensor, slope: Tensor) -> Float[Tensor, "inputs outputs"]:
    """Return the products of features with what the gist leaves of value and average log-mass."""
    heads, size = len(share), moments.gist.shape[2]
    value, mass, mean, score = moments.xy.split((heads * size, heads, heads * size, heads), 1)
    return torch.cat((value - mean * share.repeat_interleave(size), mass - score * slope), 1)


def narrowed(
    weight: Float[Tensor, "features outputs"], rank: int
) -> tuple[Float[Tensor, "features rank"], Float[Tensor, "rank outputs"]]:
    """Return the best map of a rank, for features that vary alike."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    return (left[:, :rank] * values[:rank]).float(), right[:rank].float()
