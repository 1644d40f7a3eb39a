"""One lesson of the distillation: how far a window's predictions are from the untouched model's, and the
gradient of that.

The untouched model is the same model while it reads everything. The logits exist for a few tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import kl_div

from torchcram.pretrained.analysis.layerwise import Calls, Layerwise
from torchcram.pretrained.retrofit.gradients import LOGITS
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.memory import Answered, LayerMemory
from torchcram.pretrained.retrofit.processes import Processes
from torchcram.types import Reads

Hidden = Float[Tensor, "batch tokens width"]


@torch.no_grad()
def untouched_states(layerwise: Layerwise, ids: Int[Tensor, " tokens"]) -> tuple[Calls, Hidden]:
    """Return how the layers are called on a window, and the untouched model's states behind the last one."""
    calls = layerwise.embed(ids)
    with reading(layerwise.model, "all"):
        return calls, layerwise.run(calls.embedded, calls)


def divergence_reference(
    layerwise: Layerwise, calls: Calls, untouched: Hidden, now: Hidden
) -> Float[Tensor, ""]:
    """Return the definition of what :func:`divergence_gradient` returns first, by all logits at once."""
    old, new = (layerwise.logits(hidden, calls).log_softmax(-1) for hidden in (untouched, now))
    return kl_div(new, old, reduction="sum", log_target=True) / len(calls.ids)


def divergence_gradient(
    layerwise: Layerwise, calls: Calls, untouched: Hidden, now: Hidden
) -> tuple[float, Hidden]:
    """Return the mean divergence from the untouched model's predictions, in nats a token (Kullback-Leibler,
    untouched first), and its gradient with respect to the states ``now``.
    """
    total, gradients = 0.0, []
    for start in range(0, len(calls.ids), LOGITS):
        piece = slice(start, start + LOGITS)
        short = Calls(ids=calls.ids[piece], embedded=now[:, piece].detach(), arguments=calls.arguments)
        part = now[:, piece].detach().requires_grad_()
        with torch.no_grad():
            old = _log_predictions(layerwise, untouched[:, piece], short)
        with torch.enable_grad():
            new = _log_predictions(layerwise, part, short)
            divergence = kl_div(new, old, reduction="sum", log_target=True) / len(calls.ids)
        gradients.append(torch.autograd.grad(divergence, part)[0])
        total += float(divergence.detach())
    return total, torch.cat(gradients, 1)


def _log_predictions(layerwise: Layerwise, hidden: Hidden, calls: Calls) -> Tensor:
    logits = layerwise.logits(hidden, calls)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


class ReadCount:
    """Counts reads and tokens x layers while it is open.

    Args:
        memories: the layers that are counted.
    """

    def __init__(self, memories: Mapping[int, LayerMemory]):
        self.memories = memories
        self.reads: dict[int, int] = dict.fromkeys(memories, 0)
        self.tokens = 0
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> ReadCount:
        for layer, memory in self.memories.items():
            self._handles.append(memory.register_forward_hook(self._counting(layer)))
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _counting(self, layer: int) -> Callable[..., None]:
        def count(module: object, args: object, answered: Answered) -> None:
            self.reads[layer] += int(answered.decision.used.sum())
            self.tokens += answered.decision.used.numel()

        return count

    def share_with(self, processes: Processes) -> None:
        """Count what all processes counted."""
        counts = torch.tensor([self.tokens, *self.reads.values()])
        processes.add(counts)
        self.tokens, *reads = counts.tolist()
        self.reads = dict(zip(self.reads, reads, strict=True))

    @property
    def share(self) -> float:
        """Share of token x layer that read."""
        return sum(self.reads.values()) / max(self.tokens, 1)

    def share_of(self, layer: int) -> float:
        """Share of a layer's tokens that read."""
        return self.reads[layer] * len(self.memories) / max(self.tokens, 1)


@torch.enable_grad()
def distil(
    layerwise: Layerwise, ids: Int[Tensor, " tokens"], *, reads: Reads, price: float | None = None
) -> tuple[float, ReadCount]:
    """Add the gradient of one window's divergence to whatever asks for gradients; return the divergence, and
    what was read.

    Args:
        layerwise: the model.
        ids: the window.
        reads: what the taught model may read.
        price: of a read, in nats; the model's own if None.
    """
    calls, untouched = untouched_states(layerwise, ids)
    count = ReadCount(memories(layerwise.model))
    with reading(layerwise.model, reads, price=price), count:
        now = layerwise.run(calls.embedded, calls)
    divergence, gradient = divergence_gradient(layerwise, calls, untouched, now)
    # Where every token reads there is nothing to learn.
    if now.requires_grad:
        now.backward(gradient)
    return divergence, count
