"""Fit how notable an entry is, in closed form: how much attention it gets from beyond its window, times the
length of its value, as a logarithm, from the state of its token.

In the manner of KVzap (arXiv 2601.07891), with the mean in place of the maximum: what is kept is to carry as
much of the remote part as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.pretrained.retrofit.kept import Keeper
from torchcram.pretrained.retrofit.lessons import listening
from torchcram.pretrained.retrofit.memory import Asked, LayerMemory
from torchcram.pretrained.retrofit.processes import ALONE, Processes
from torchcram.pretrained.retrofit.reach import Reach

# Strength of the ridge, as a share of the variance of a feature, and the least that is told apart.
RIDGE, LEAST = 0.03, 1e-5
# Queries whose scores exist at once.
PIECE = 256


@dataclass(kw_only=True)
class KeeperMoments:
    """Streaming sums of states and attention of entries.

    Attributes:
        xx: sums of products of states, with a one at the end, with themselves.
        xy: sums of products of states and what is to be told.
    """

    xx: Tensor
    xy: Tensor

    def add(self, asked: Asked, reach: Reach) -> None:
        """Take in the entries of a pass that were remote for at least a window of queries."""
        given, enough = given_to_remote(asked, reach)
        x = asked.hidden[enough].double()
        x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        self.xx += x.T @ x
        self.xy += x.T @ given.transpose(1, 2)[enough].double().add(LEAST).log()

    def give(self, keeper: Keeper) -> None:
        """Solve, and put the map into a keeper."""
        total = self.xx[-1, -1].clamp(min=1)
        mean_x, mean_y = self.xx[:-1, -1] / total, self.xy[-1] / total
        spread = self.xx[:-1, :-1] / total - torch.outer(mean_x, mean_x)
        common = self.xy[:-1] / total - torch.outer(mean_x, mean_y)
        # Each feature by its own deviation.
        scale = spread.diagonal().clamp(min=1e-12).sqrt()
        ridge = RIDGE * torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
        weight = torch.linalg.solve(spread / torch.outer(scale, scale) + ridge, common / scale[:, None])
        keeper.weight.copy_((weight / scale[:, None]).T)


def no_keeper_moments(*, width: int, kv_heads: int, device: torch.device) -> KeeperMoments:
    """Return the sums over no entries."""
    xx = torch.zeros(width + 1, width + 1, dtype=torch.float64, device=device)
    return KeeperMoments(xx=xx, xy=xx.new_zeros(width + 1, kv_heads))


@torch.no_grad()
def given_to_remote(
    asked: Asked, reach: Reach
) -> tuple[Float[Tensor, "batch kv_heads time"], Bool[Tensor, "batch time"]]:
    """Return what each entry of a first pass gave to the queries to which it was remote, and which entries
    had as many such queries as a window is long.

    It is the mean attention, summed over the heads that share the entry, times the length of its value.
    """
    entries, steps = asked.entries, asked.query.shape[2]
    shared = entries.key.shape[1]
    ranks, total = entries.ranks(sinks=reach.sinks)[:, None], 0.0
    counts = torch.zeros(len(entries.key), entries.key.shape[2], device=entries.key.device)
    for start in range(0, steps, PIECE):
        queries = entries.query_ranks(steps)[:, start : start + PIECE, None]
        query = asked.query[:, :, start : start + PIECE].unflatten(1, (shared, -1))
        scores = (query @ entries.key[:, :, None].mT).float()
        weights = scores.masked_fill(~reach.seen(queries, ranks)[:, None, None], -torch.inf).softmax(-1)
        remote = reach.remote(queries, ranks)
        if asked.real is not None:
            remote = remote & asked.real[:, start : start + PIECE, None]
        total = total + (weights * remote[:, None, None]).sum((2, 3))
        counts += remote.sum(1)
    mean = total / counts.clamp(min=1)[:, None]
    return mean * entries.value.float().norm(dim=-1), counts >= reach.window


@torch.no_grad()
def fit_keepers(
    model: Any,
    layers: dict[int, LayerMemory],
    windows: Sequence[Tensor],
    *,
    processes: Processes = ALONE,
    advance: Callable[[int], None] = lambda tokens: None,
) -> None:
    """Fit the keepers of all layers that keep entries, on text on which the model reads everything.

    Args:
        model: retrofitted, at rest, reading everything.
        layers: its memories.
        windows: tokens.
        processes: that share the windows.
        advance: is told the tokens of each finished window.
    """
    keepers = {layer: memory.keeper for layer, memory in layers.items() if memory.keeper is not None}
    if not keepers:
        return
    sums: dict[int, KeeperMoments] = {}

    def hear(layer: int, asked: Asked) -> None:
        if layer not in sums:
            sums[layer] = no_keeper_moments(
                width=asked.hidden.shape[2], kv_heads=asked.entries.key.shape[1], device=asked.hidden.device
            )
        sums[layer].add(asked, layers[layer].reach)

    with listening({layer: layers[layer] for layer in keepers}, hear):
        for ids in processes.mine(windows):
            model.base_model(input_ids=ids[None], use_cache=False)
            advance(len(ids))
    for layer, moments in sorted(sums.items()):
        processes.add(moments.xx, moments.xy)
        moments.give(keepers[layer])


def keeps(layers: dict[int, LayerMemory]) -> bool:
    """Return whether some layer keeps entries."""
    return any(memory.keeper is not None for memory in layers.values())
