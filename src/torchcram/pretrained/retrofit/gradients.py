"""Gradients of the model's own predictions with respect to the heads of every layer, one layer at a time.

Labels are drawn from the model itself, so that half the mean square of gradient times change is the
divergence that a change makes, to second order. Only the inputs of the layers are kept; each layer runs once
more for its gradient, and the logits exist for a few tokens at a time: memory does not grow with the depth
times the width of what happens inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from torchcram.pretrained.analysis.layerwise import Calls, Layerwise
from torchcram.pretrained.retrofit.lessons import changing
from torchcram.pretrained.retrofit.memory import Asked, LayerMemory

# Tokens whose logits exist at once.
LOGITS = 256


def generators_of(
    windows: Sequence[Int[Tensor, " _"]], generator: torch.Generator
) -> list[tuple[Int[Tensor, " _"], torch.Generator]]:
    """Return each window with a generator of its own, so that its labels do not depend on who draws those of
    the others.
    """
    seeds = torch.randint(2**31, (len(windows),), generator=generator).tolist()
    return [(ids, torch.Generator().manual_seed(seed)) for ids, seed in zip(windows, seeds, strict=True)]


def visit_gradients(
    layerwise: Layerwise,
    memories: Mapping[int, LayerMemory],
    ids: Int[Tensor, " tokens"],
    visit: Callable[[int, Asked, Float[Tensor, "batch heads time d_head"]], None],
    *,
    generator: torch.Generator,
) -> None:
    """Run one window forward and backward, last layer first.

    Args:
        layerwise: the model; it runs under the control that is in force (let it read everything).
        memories: by number of the decoder layer.
        ids: the window.
        visit: is told of each layer with memories what it was asked and the gradient at its heads.
        generator: draws the labels.
    """
    with torch.no_grad():
        calls = layerwise.embed(ids)
        entered = [calls.embedded]
        for layer in range(len(layerwise.layers)):
            entered.append(layerwise.run(entered[-1], calls, start=layer, end=layer + 1))
    gradient = _head_gradient(layerwise, entered.pop(), calls, generator)
    for layer in reversed(range(len(layerwise.layers))):
        gradient = _through(layerwise, memories.get(layer), layer, entered.pop(), calls, gradient, visit)


def _head_gradient(layerwise: Layerwise, hidden: Tensor, calls: Calls, generator: torch.Generator) -> Tensor:
    """Return the gradient of the summed losses behind the last layer."""
    parts = []
    for start in range(0, len(calls.ids), LOGITS):
        piece = slice(start, start + LOGITS)
        part = hidden[:, piece].detach().requires_grad_()
        short = Calls(ids=calls.ids[piece], embedded=part, arguments=calls.arguments)
        with torch.enable_grad():
            logits = layerwise.logits(part, short).float()
            labels = drawn(logits.detach(), generator)
            parts.append(torch.autograd.grad(cross_entropy(logits, labels, reduction="sum"), part)[0])
    return torch.cat(parts, 1)


def drawn(logits: Float[Tensor, "tokens vocabulary"], generator: torch.Generator) -> Int[Tensor, " tokens"]:
    """Draw one label for each token, by one uniform number each."""
    level = torch.rand(len(logits), 1, generator=generator).to(logits.device)
    cumulated = logits.softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulated, level * cumulated[:, -1:])[:, 0].clamp(max=logits.shape[1] - 1)


def _through(
    layerwise: Layerwise,
    memory: LayerMemory | None,
    layer: int,
    hidden: Tensor,
    calls: Calls,
    gradient: Tensor,
    visit: Callable[[int, Asked, Tensor], None],
) -> Tensor:
    """Return the gradient before a layer, given the one behind it."""
    given = hidden.detach().requires_grad_()
    if memory is None:
        with torch.enable_grad():
            output = layerwise.run(given, calls, start=layer, end=layer + 1)
        return torch.autograd.grad(output, given, gradient)[0]
    seen: list[Any] = []

    def add_leaf(asked: Asked, heads: Tensor) -> Tensor:
        seen.extend((asked, torch.zeros_like(heads, requires_grad=True)))
        return heads + seen[1]

    with torch.enable_grad(), changing(memory, add_leaf):
        output = layerwise.run(given, calls, start=layer, end=layer + 1)
    before, at_heads = torch.autograd.grad(output, (given, seen[1]), gradient)
    with torch.no_grad():
        visit(layer, seen[0], at_heads)
    return before
