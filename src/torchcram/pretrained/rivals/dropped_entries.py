"""Cache entries that are dropped by a ridge score of the token's state, before anybody asked for them: in the
manner of KVzap (arXiv 2601.07891).

What is scored is the most attention that an entry ever gets from beyond its window, times the length of its
value, as a logarithm. One threshold holds for all layers and heads. Entries in the window are always there.

Deviation: a linear score fitted on a few windows of the text at hand, of the model as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.judge import Way
from torchcram.pretrained.retrofit.memory import Answered, Asked
from torchcram.pretrained.retrofit.reach import Reach
from torchcram.pretrained.retrofit.router import decision_of
from torchcram.pretrained.rivals.contender import (
    Advance,
    Contender,
    Point,
    Tally,
    answering,
    empty_tally,
)
from torchcram.types import Route

RIDGE = 1e-2
TINY = 1e-9


class DroppedEntries(Contender):
    """Every token looks at what is near and at the entries that were kept."""

    name = "dropped entries"
    source = "in the manner of KVzap, arXiv 2601.07891"

    def __init__(self) -> None:
        self.maps: dict[int, Tensor] = {}

    @torch.no_grad()
    def fit(self, model: Any, windows: Sequence[Tensor], *, advance: Advance) -> None:
        """Fit the score of every layer."""
        layers = memories(model)
        sums: dict[int, tuple[Tensor, Tensor]] = {}

        def hear(layer: int, asked: Asked, answered: Answered) -> Answered:
            wanted, asked_for = importance(asked, layers[layer].reach)
            x = _with_one(asked.hidden)[asked_for].double()
            xx, xy = x.T @ x, x.T @ wanted[asked_for].double()
            before = sums.get(layer, (torch.zeros_like(xx), torch.zeros_like(xy)))
            sums[layer] = before[0] + xx, before[1] + xy
            return answered

        with reading(model, "all"), answering(layers, hear):
            for ids in windows:
                model.base_model(input_ids=ids[None], use_cache=False)
                advance(len(ids))
        for layer, (xx, xy) in sums.items():
            ridge = torch.full((len(xx),), RIDGE, dtype=xx.dtype, device=xx.device)
            ridge[-1] = 0.0
            ridge *= xx.diagonal()[:-1].mean()
            self.maps[layer] = torch.linalg.solve(xx + ridge.diag(), xy).float()

    def points(
        self, model: Any, select: Sequence[Tensor], shares: Sequence[float], *, advance: Advance
    ) -> list[Point]:
        """Return a point at the threshold that keeps each share of the entries."""
        scores: list[Tensor] = []

        def hear(layer: int, asked: Asked, answered: Answered) -> Answered:
            scores.append(self._scores(layer, asked).flatten())
            return answered

        with torch.no_grad(), reading(model, "all"), answering(memories(model), hear):
            for ids in select:
                model.base_model(input_ids=ids[None], use_cache=False)
        sorted_scores = torch.cat(scores).sort(descending=True).values
        points = []
        for share in shares:
            threshold = float(sorted_scores[min(int(share * len(sorted_scores)), len(sorted_scores) - 1)])
            points.append(Point(label=f"{share:.0%} kept", way=self._above(model, threshold), cache=None))
            advance(1)
        return points

    def _scores(self, layer: int, asked: Asked) -> Float[Tensor, "batch time kv_heads"]:
        return _with_one(asked.hidden).float() @ self.maps[layer]

    def _above(self, model: Any, threshold: float) -> Way:
        @contextmanager
        def way() -> Iterator[Tally]:
            layers, tally = memories(model), empty_tally()

            def answer(layer: int, asked: Asked, answered: Answered) -> Answered:
                kept = self._scores(layer, asked) > threshold
                heads = attend_to_kept(asked, layers[layer].reach, kept, tally)
                route = torch.full_like(answered.decision.route, int(Route.WORKING))
                return replace(answered, heads=heads, decision=decision_of(route))

            with reading(model, "none"), answering(layers, answer):
                yield tally

        return way


def importance(
    asked: Asked, reach: Reach
) -> tuple[Float[Tensor, "batch time kv_heads"], Bool[Tensor, "batch time"]]:
    """Return the logarithm of the most attention that each entry gets as a remote one, times the length of
    its value; and which entries are ever remote.
    """
    scores, remote = _scored(asked), _rule(asked, reach.remote)
    scores = scores.masked_fill(~_rule(asked, reach.seen)[:, None], -torch.inf).softmax(-1)
    most = scores.masked_fill(~remote[:, None], 0.0).amax(2)
    shared = asked.entries.key.shape[1]
    most = most.unflatten(1, (shared, -1)).amax(2)
    wanted = (most * asked.entries.value.norm(dim=-1)).clamp_min(TINY).log()
    return wanted.transpose(1, 2), remote.any(1)


def attend_to_kept(
    asked: Asked, reach: Reach, kept: Bool[Tensor, "batch time kv_heads"], tally: Tally
) -> Float[Tensor, "batch heads time d_head"]:
    """Return attention to what is near and what is kept, and count what that is."""
    shared = asked.query.shape[1] // asked.entries.key.shape[1]
    near, remote = _rule(asked, reach.near), _rule(asked, reach.remote)
    looked = remote[:, None] & kept.transpose(1, 2)[:, :, None]
    visible = (near[:, None] | looked).repeat_interleave(shared, 1)
    weights = _scored(asked).masked_fill(~visible, -torch.inf).softmax(-1)
    share = looked.sum(-1) / remote.sum(-1).clamp(min=1)[:, None]
    tally.reads += torch.tensor([float(share.mean(1).sum()), float(near.shape[0] * near.shape[1])])
    # Behind the window, what is near to the last token is kept in any case.
    lasting = kept.transpose(1, 2) | near[:, None, -1]
    tally.kept += torch.tensor([float(lasting.sum()), float(lasting.numel())])
    return weights.to(asked.query.dtype) @ asked.entries.value.repeat_interleave(shared, 1)


def _scored(asked: Asked) -> Float[Tensor, "batch heads time time"]:
    if asked.query.shape[2] != asked.entries.key.shape[2]:
        raise ValueError("entries are dropped in whole windows alone: judge without a cache")
    shared = asked.query.shape[1] // asked.entries.key.shape[1]
    return (asked.query @ asked.entries.key.repeat_interleave(shared, 1).mT).float()


def _rule(asked: Asked, rule: Any) -> Bool[Tensor, "batch time time"]:
    ranks = asked.entries.query_ranks(asked.query.shape[2])
    return rule(ranks[:, :, None], ranks[:, None, :])


def _with_one(hidden: Tensor) -> Tensor:
    return torch.cat((hidden, torch.ones_like(hidden[..., :1])), -1)
