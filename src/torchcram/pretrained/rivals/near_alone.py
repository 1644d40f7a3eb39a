"""Near attention alone, with wider and wider windows: StreamingLLM (Xiao et al. 2023, arXiv 2309.17453)."""

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
from torchcram.pretrained.retrofit.reach import Reach
from torchcram.pretrained.rivals.ablations import silent
from torchcram.pretrained.rivals.contender import Advance, Contender, Point, Tally, empty_tally, hooked

# Windows, as multiples of the retrofit's own.
WIDER = (1, 2, 4, 8)


class NearAlone(Contender):
    """The sinks and a window; nothing else is kept. What a wider window sees of the retrofit's remote tokens
    counts as read, in part.
    """

    name = "near alone"
    source = "StreamingLLM, arXiv 2309.17453"

    def points(
        self, model: Any, select: Sequence[Tensor], shares: Sequence[float], *, advance: Advance
    ) -> list[Point]:
        """Return a point for each window that is shorter than the text."""
        del shares
        context = max(len(ids) for ids in select)
        layers, every = memories(model), len(attention_blocks(model))
        reach = next(iter(layers.values())).reach
        points = []
        for wider in WIDER:
            near = reach.sinks + wider * reach.window
            if near < context:
                cache = (len(layers) * near / context + every - len(layers)) / every
                points.append(
                    Point(label=f"window {wider * reach.window}", way=_within(model, wider), cache=cache)
                )
        return points


def _within(model: Any, wider: int) -> Way:
    @contextmanager
    def way() -> Iterator[Tally]:
        layers, tally = memories(model), empty_tally()
        before = {layer: memory.reach for layer, memory in layers.items()}
        hooks: dict[Any, Any] = {memory.semantic: silent for memory in layers.values()}
        for layer, memory in layers.items():
            narrow = replace(before[layer], kept=0)
            memory.reach = replace(narrow, window=wider * narrow.window)
            hooks[memory] = _counting(narrow, memory.reach, tally)
        try:
            with reading(model, "none"), hooked(hooks):
                yield tally
        finally:
            for layer, memory in layers.items():
                memory.reach = before[layer]

    return way


def _counting(narrow: Reach, wide: Reach, tally: Tally) -> Any:
    def hook(module: Any, args: tuple[Asked], answered: Answered) -> None:
        ranks = args[0].entries.query_ranks(args[0].hidden.shape[1])
        remote, left = (reach.remote_count(ranks) for reach in (narrow, wide))
        looked = ((remote - left) / remote.clamp(min=1)).sum()
        tally.reads += torch.tensor([float(looked), float(ranks.numel())], dtype=torch.float64)

    return hook
