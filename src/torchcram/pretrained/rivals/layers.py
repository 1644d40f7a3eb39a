"""What rivals that replace whole layers of attention have in common: the layers are ranked once, and the best
ones are replaced, until as much is read as is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchcram.pretrained.retrofit.install import attention_blocks, memories, reading
from torchcram.pretrained.retrofit.judge import Way
from torchcram.pretrained.retrofit.memory import Answered, Asked
from torchcram.pretrained.retrofit.router import decision_of
from torchcram.pretrained.rivals.contender import Advance, Contender, Point, answering
from torchcram.types import Route


class ReplacedLayers(Contender):
    """Some layers have no attention any more, and keep no cache; the others are untouched.

    Attributes:
        order: layers, the one that is replaced first stands first; known once it was fitted.
    """

    order: list[int]

    def heads(self, layer: int, asked: Asked, answered: Answered) -> Tensor:
        """Return what stands in the place of a layer's heads, ``[batch, heads, time, d_head]``."""
        raise NotImplementedError

    def points(
        self, model: Any, select: Sequence[Tensor], shares: Sequence[float], *, advance: Advance
    ) -> list[Point]:
        """Return a point for each share of reads, and one with all layers replaced."""
        every, context = len(attention_blocks(model)), max(len(ids) for ids in select)
        reach = next(iter(memories(model).values())).reach
        beyond = float((reach.remote_count(torch.arange(context)) > 0).float().mean())
        points: dict[int, Point] = {}
        for share in (*shares, 0.0):
            left = min(round(share / beyond * len(self.order)), len(self.order))
            gone = self.order[: len(self.order) - left]
            points[left] = Point(
                label=f"{len(gone)} layers replaced",
                way=self._without(model, gone),
                cache=(every - len(gone)) / every,
            )
        return list(points.values())

    def _without(self, model: Any, gone: Sequence[int]) -> Way:
        @contextmanager
        def way() -> Iterator[None]:
            layers = {layer: memories(model)[layer] for layer in gone}
            with reading(model, "all"), answering(layers, self._answer):
                yield

        return way

    def _answer(self, layer: int, asked: Asked, answered: Answered) -> Answered:
        route = torch.full_like(answered.decision.route, int(Route.WORKING))
        return replace(answered, heads=self.heads(layer, asked, answered), decision=decision_of(route))
