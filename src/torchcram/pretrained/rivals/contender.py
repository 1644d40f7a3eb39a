"""What the judge takes: something that makes a retrofitted model act otherwise for a while, and what that
costs.

A retrofitted model that reads everything is the untouched one, so each rival starts from there, and needs no
second copy of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from torchcram.pretrained.retrofit.install import attention_blocks, memories
from torchcram.pretrained.retrofit.judge import Way
from torchcram.pretrained.retrofit.memory import Answered, Asked, LayerMemory

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A contender at one budget.

    Attributes:
        label: what the budget is.
        way: the model as this contender, for a while.
        cache: bytes that it keeps behind a window, as a share of the untouched model's; None if only the way
            knows.
    """

    label: str
    way: Way
    cache: float | None


class Contender:
    """What all contenders have in common.

    Attributes:
        name: for tables and figures.
        source: where it is from.
    """

    name: str
    source: str

    def fit(self, model: Any, windows: Sequence[Tensor], *, advance: Advance) -> None:
        """Learn from text what has to be known; most learn nothing.

        Args:
            model: retrofitted, at rest.
            windows: tokens.
            advance: is told the tokens of each finished window.
        """
        del model
        for ids in windows:
            advance(len(ids))

    def points(
        self, model: Any, select: Sequence[Tensor], shares: Sequence[float], *, advance: Advance
    ) -> list[Point]:
        """Return the budgets at which it is judged.

        Args:
            model: retrofitted, at rest.
            select: tokens of windows on which budgets are set.
            shares: of reads that are wanted.
            advance: is told of each budget that is set.
        """
        raise NotImplementedError


@dataclass(kw_only=True)
class Tally:
    """What a contender counts for itself.

    Attributes:
        reads: reads, and tokens x layers; a token that looks at a part of what is remote counts as that part.
        kept: entries that are kept, and all.
    """

    reads: Float64[Tensor, "2"]
    kept: Float64[Tensor, "2"]


def empty_tally() -> Tally:
    """Return a tally of nothing."""
    return Tally(reads=torch.zeros(2, dtype=torch.float64), kept=torch.zeros(2, dtype=torch.float64))


def cache_share(model: Any, *, context: int) -> float:
    """Return the entries that the model keeps behind a context, as a share of the untouched model's."""
    layers = memories(model)
    kept = sum(
        min(memory.reach.held / context, 1.0) if memory.router is None else 1.0 + memory.reach.kept / context
        for memory in layers.values()
    )
    every = len(attention_blocks(model))
    return (kept + every - len(layers)) / every


@contextmanager
def answering(
    layers: Mapping[int, LayerMemory], answer: Callable[[int, Asked, Answered], Answered]
) -> Iterator[None]:
    """Put other answers in the place of some layers', for a while."""

    def hook(layer: int) -> Callable[..., Answered]:
        return lambda module, args, answered: answer(layer, args[0], answered)

    with hooked({memory: hook(layer) for layer, memory in layers.items()}):
        yield


@contextmanager
def hooked(hooks: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Call functions behind some modules for a while; what they return stands for the output."""
    with ExitStack() as stack:
        for module, hook in hooks.items():
            stack.callback(module.register_forward_hook(hook).remove)
        yield
