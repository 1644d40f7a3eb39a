"""How far a retrofitted model is from the untouched one: when it reads everything, it is its own
reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import pad

from torchcram.pretrained.analysis.layerwise import Calls, Layerwise
from torchcram.pretrained.retrofit.gradients import LOGITS
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.memory import Answered, LayerMemory
from torchcram.pretrained.retrofit.processes import ALONE, Processes
from torchcram.pretrained.sites import find_sites
from torchcram.types import Reads


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Under which a model is judged.

    Attributes:
        reads: all, routed or none.
        price: of a read, in nats; the model's own if None.
    """

    reads: Reads = "routed"
    price: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Means over tokens.

    Attributes:
        tokens: how many.
        reads: share of token x layer that read, over all layers with memories.
        divergence: from the untouched model's predictions, in nats (Kullback-Leibler, untouched first).
        loss_change: of the loss of the next token, in nats.
        agreement: share of likeliest next tokens that are the same.
    """

    tokens: int
    reads: float
    divergence: float
    loss_change: float
    agreement: float


# What a model does for a while. What it yields may count reads in its own way: reads, and tokens x layers.
Way = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True)
class ByPosition:
    """Sums over windows, position by position.

    Attributes:
        windows: that have the position.
        divergence: from the untouched model, in nats.
        loss_change: of the loss of the next token, in nats; the last token of a window has none.
        same: likeliest next tokens that are the same.
        untouched_loss: of the untouched model, in nats.
        reads: reads, and tokens x layers with memories, of all positions.
    """

    windows: Float64[Tensor, " positions"]
    divergence: Float64[Tensor, " positions"]
    loss_change: Float64[Tensor, " positions"]
    same: Float64[Tensor, " positions"]
    untouched_loss: Float64[Tensor, " positions"]
    reads: Float64[Tensor, "2"]

    def between(self, start: int = 0, end: int | None = None) -> Judgement:
        """Return the means over some positions; the reads are those of all positions."""
        piece = slice(start, end)
        tokens = int(self.windows[piece].sum())
        # A position counts as a prediction in those windows that go on behind it.
        predictions = int((self.windows - _ending(self.windows))[piece].sum())
        return Judgement(
            tokens=tokens,
            reads=float(self.reads[0] / self.reads[1]),
            divergence=float(self.divergence[piece].sum()) / tokens,
            loss_change=float(self.loss_change[piece].sum()) / max(predictions, 1),
            agreement=float(self.same[piece].sum()) / tokens,
        )

    def loss_between(self, start: int = 0, end: int | None = None) -> float:
        """Return the mean loss of the untouched model over some positions."""
        piece = slice(start, end)
        predictions = int((self.windows - _ending(self.windows))[piece].sum())
        return float(self.untouched_loss[piece].sum()) / max(predictions, 1)


def _ending(windows: Float64[Tensor, " positions"]) -> Float64[Tensor, " positions"]:
    """Return how many windows end at each position."""
    return windows - torch.cat((windows[1:], windows.new_zeros(1)))


@torch.no_grad()
def judge(
    model: Any,
    windows: Sequence[Tensor],
    settings: Mapping[str, Setting],
    *,
    processes: Processes = ALONE,
) -> dict[str, Judgement]:
    """Judge a retrofitted model on some windows, under some settings.

    Args:
        model: retrofitted, at rest.
        windows: tokens.
        settings: by name.
        processes: that share the windows.
    """

    def way(setting: Setting) -> Way:
        return lambda: reading(model, setting.reads, price=setting.price)

    ways = {name: way(setting) for name, setting in settings.items()}
    by_position = judge_ways(model, windows, ways, processes=processes)
    return {name: each.between() for name, each in by_position.items()}


@torch.no_grad()
def judge_ways(
    model: Any,
    windows: Sequence[Tensor],
    ways: Mapping[str, Way],
    *,
    processes: Processes = ALONE,
    advance: Callable[[int], None] = lambda tokens: None,
) -> dict[str, ByPosition]:
    """Judge what a retrofitted model can be made to do, position by position.

    Args:
        model: retrofitted, at rest.
        windows: tokens.
        ways: by name, context managers inside which the model is judged.
        processes: that share the windows.
        advance: is told the tokens of each finished window.
    """
    layerwise = Layerwise(model, find_sites(model))
    length = max(len(ids) for ids in windows)
    seen = torch.zeros(length, dtype=torch.float64)
    sums = {name: torch.zeros(4, length, dtype=torch.float64) for name in ways}
    counts = {name: torch.zeros(2, dtype=torch.float64) for name in ways}
    for ids in processes.mine(windows):
        seen[: len(ids)] += 1
        calls = layerwise.embed(ids)
        with reading(model, "all"):
            untouched = layerwise.run(calls.embedded, calls)
        behind: dict[str, Tensor] = {}
        for name, way in ways.items():
            counted = Counted(memories(model))
            with way() as own, counted:
                behind[name] = layerwise.run(calls.embedded, calls)
            counts[name] += (counted if own is None else own).reads
        comparisons = compared_tokens(layerwise, calls, untouched, list(behind.values()))
        for name, each in zip(behind, comparisons, strict=True):
            sums[name][:, : len(ids)] += each
        advance(len(ids))
    processes.add(seen, *sums.values(), *counts.values())
    return {
        name: ByPosition(
            windows=seen,
            divergence=each[0],
            loss_change=each[1],
            same=each[2],
            untouched_loss=each[3],
            reads=counts[name],
        )
        for name, each in sums.items()
    }


def compared(layerwise: Layerwise, calls: Calls, untouched: Tensor, now: Tensor) -> Float64[Tensor, "3"]:
    """Return the sums over tokens of divergence, change of the loss, and agreement, given the hidden states
    of two models behind the last layer.
    """
    return compared_tokens(layerwise, calls, untouched, [now])[0][:3].sum(1)


def compared_tokens(
    layerwise: Layerwise, calls: Calls, untouched: Tensor, others: Sequence[Tensor]
) -> list[Float64[Tensor, "4 tokens"]]:
    """Return, for each of some models, divergence, change of the loss, agreement and loss of the untouched
    model, token by token; the last token has no loss.

    The logits exist for a few tokens and two models at a time.
    """
    ids = calls.ids
    pieces: list[list[Tensor]] = [[] for _ in others]
    for start in range(0, len(ids), LOGITS):
        piece = slice(start, start + LOGITS)
        part = Calls(ids=ids[piece], embedded=calls.embedded[:, piece], arguments=calls.arguments)
        old = layerwise.logits(untouched[:, piece], part).float().log_softmax(-1)
        likely, following = old.exp(), ids[start + 1 : start + LOGITS + 1]
        before = _losses(old, following)
        for number, hidden in enumerate(others):
            new = layerwise.logits(hidden[:, piece], part).float().log_softmax(-1)
            divergence = (old - new).mul_(likely).sum(1)
            same = old.argmax(-1) == new.argmax(-1)
            change = _losses(new, following) - before
            pieces[number].append(torch.stack((divergence, change, same, before)).double().cpu())
    return [torch.cat(each, 1) for each in pieces]


def _losses(log_likely: Float[Tensor, "tokens vocabulary"], following: Tensor) -> Float[Tensor, " tokens"]:
    """Return the loss of each next token, zero where there is none."""
    losses = -log_likely[: len(following)].gather(1, following[:, None])[:, 0]
    return pad(losses, (0, len(log_likely) - len(following)))


class Counted:
    """Counts reads and tokens x layers while it is open.

    Args:
        layers: the memories whose decisions count.
    """

    def __init__(self, layers: Mapping[int, LayerMemory]):
        self.layers, self.reads = layers, torch.zeros(2, dtype=torch.float64)
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for memory in self.layers.values():
            self.handles.append(memory.register_forward_hook(self._count))

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _count(self, module: Any, args: Any, answered: Answered) -> None:
        used = answered.decision.used
        self.reads += torch.tensor([float(used.sum()), float(used.numel())], dtype=torch.float64)
