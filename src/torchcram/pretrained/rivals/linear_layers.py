"""Layers of attention replaced by linear maps of their inputs: NBL (arXiv 2505.21077).

Deviation: layers are ranked by the share of variance that the map leaves, on the text that it was fitted to,
not by the bound from canonical correlations; with least squares both say how linear a layer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.memory import Answered, Asked
from torchcram.pretrained.rivals.contender import Advance, answering
from torchcram.pretrained.rivals.layers import ReplacedLayers

# Of the mean square of a channel: only so much that the map exists.
RIDGE = 1e-3


@dataclass(kw_only=True)
class _Sums:
    """Products of the block's input (with a one at the end) with itself and with the heads, and squares."""

    xx: Float64[Tensor, "inputs inputs"]
    xy: Float64[Tensor, "inputs outputs"]
    yy: Float64[Tensor, " outputs"]


class LinearLayers(ReplacedLayers):
    """The map with the least mean squared error."""

    name = "linear layers"
    source = "NBL, arXiv 2505.21077"

    def __init__(self) -> None:
        self.maps: dict[int, Tensor] = {}

    @torch.no_grad()
    def fit(self, model: Any, windows: Sequence[Tensor], *, advance: Advance) -> None:
        """Fit the map of every layer on the inputs of the untouched model, and rank the layers."""
        sums: dict[int, _Sums] = {}

        def hear(layer: int, asked: Asked, answered: Answered) -> Answered:
            _add(sums, layer, asked, answered)
            return answered

        with reading(model, "all"), answering(memories(model), hear):
            for ids in windows:
                model.base_model(input_ids=ids[None], use_cache=False)
                advance(len(ids))
        left = {layer: self._solve(layer, each) for layer, each in sums.items()}
        self.order = sorted(left, key=left.__getitem__)

    def _solve(self, layer: int, sums: _Sums) -> float:
        """Keep the map of a layer, and return the share of variance that it leaves."""
        ridge = torch.full((len(sums.xx),), RIDGE, dtype=torch.float64, device=sums.xx.device)
        ridge[-1] = 0.0
        ridge *= sums.xx.diagonal()[:-1].mean()
        solved = torch.linalg.solve(sums.xx + ridge.diag(), sums.xy)
        explained = (solved * (2 * sums.xy - sums.xx @ solved)).sum()
        means = sums.xy[-1].square().sum() / sums.xx[-1, -1]
        self.maps[layer] = solved.float()
        return float((sums.yy.sum() - explained) / (sums.yy.sum() - means).clamp_min(1e-30))

    def heads(self, layer: int, asked: Asked, answered: Answered) -> Tensor:
        """Return the linear map of the block's input."""
        mapped = _with_one(asked.hidden).float() @ self.maps[layer]
        return mapped.unflatten(-1, (answered.heads.shape[1], -1)).transpose(1, 2).to(answered.heads.dtype)


def _add(sums: dict[int, _Sums], layer: int, asked: Asked, answered: Answered) -> None:
    x = _with_one(asked.hidden).flatten(0, 1).double()
    y = answered.heads.transpose(1, 2).flatten(2).flatten(0, 1).double()
    if layer not in sums:
        sums[layer] = _Sums(
            xx=x.new_zeros(x.shape[1], x.shape[1]),
            xy=x.new_zeros(x.shape[1], y.shape[1]),
            yy=y.new_zeros(y.shape[1]),
        )
    sums[layer].xx += x.T @ x
    sums[layer].xy += x.T @ y
    sums[layer].yy += y.square().sum(0)


def _with_one(hidden: Tensor) -> Tensor:
    return torch.cat((hidden, torch.ones_like(hidden[..., :1])), -1)
