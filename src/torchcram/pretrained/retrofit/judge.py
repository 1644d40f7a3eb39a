"""How far a retrofitted model is from the untouched one: when it reads everything, it is its own
reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import kl_div

from torchcram.pretrained.analysis.layerwise import Calls, Layerwise
from torchcram.pretrained.retrofit.gradients import LOGITS
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.memory import Answered, LayerMemory
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


@torch.no_grad()
def judge(model: Any, windows: Sequence[Tensor], settings: Mapping[str, Setting]) -> dict[str, Judgement]:
    """Judge a retrofitted model on some windows, under some settings.

    Args:
        model: retrofitted, at rest.
        windows: tokens.
        settings: by name.
    """
    layerwise = Layerwise(model, find_sites(model))
    sums = {name: torch.zeros(3, dtype=torch.float64) for name in settings}
    counts = {name: torch.zeros(2, dtype=torch.float64) for name in settings}
    tokens = sum(len(ids) for ids in windows)
    for ids in windows:
        calls = layerwise.embed(ids)
        with reading(model, "all"):
            untouched = layerwise.run(calls.embedded, calls)
        for name, setting in settings.items():
            counted = _Counted(memories(model))
            with reading(model, setting.reads, price=setting.price), counted:
                now = layerwise.run(calls.embedded, calls)
            sums[name] += compared(layerwise, calls, untouched, now)
            counts[name] += counted.reads
    predictions = tokens - len(windows)
    return {
        name: Judgement(
            tokens=tokens,
            reads=float(counts[name][0] / counts[name][1]),
            divergence=float(total[0]) / tokens,
            loss_change=float(total[1]) / predictions,
            agreement=float(total[2]) / tokens,
        )
        for name, total in sums.items()
    }


def compared(layerwise: Layerwise, calls: Calls, untouched: Tensor, now: Tensor) -> Float64[Tensor, "3"]:
    """Return the sums over tokens of divergence, change of the loss, and agreement, given the hidden states
    of two models behind the last layer.

    The logits exist for a few tokens at a time.
    """
    ids, sums = calls.ids, torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(ids), LOGITS):
        piece = slice(start, start + LOGITS)
        part = Calls(ids=ids[piece], embedded=calls.embedded[:, piece], arguments=calls.arguments)
        old, new = (
            layerwise.logits(hidden[:, piece], part).float().log_softmax(-1) for hidden in (untouched, now)
        )
        following = ids[start + 1 : start + LOGITS + 1, None]
        losses = [-each[: len(following)].gather(1, following).sum() for each in (old, new)]
        divergence = kl_div(new, old, reduction="sum", log_target=True)
        same = (old.argmax(-1) == new.argmax(-1)).sum()
        sums += torch.stack((divergence, losses[1] - losses[0], same)).double().cpu()
    return sums


class _Counted:
    """Counts reads and tokens x layers while it is open."""

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
