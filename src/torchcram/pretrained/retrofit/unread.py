"""Layers that hardly read give up their cache: they keep their near tokens alone, however long the text.

What they read is given to the other layers, so that the model reads as much as before. That is kept only if
the divergence on held-out text does not rise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from torchcram.pretrained.retrofit.consolidate import HeldText
from torchcram.pretrained.retrofit.install import memories, retrofit_of
from torchcram.pretrained.retrofit.router_fit import price_for

# A layer hardly reads if fewer of its tokens do than this share of the tokens of an average layer; and so
# many times the half of the layers is tried that was tried before.
HARDLY, TRIES = 0.2, 3


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What was chosen.

    Attributes:
        layers: that read no more.
        price: at which the others read as much as all did before.
        before, after: divergence on held-out text, in nats a token.
    """

    layers: tuple[int, ...]
    price: float
    before: float
    after: float


def give_up(model: Any, layers: Sequence[int]) -> None:
    """Let some layers never read again, in place; their routers are gone.

    Args:
        model: retrofitted.
        layers: numbers of layers with memories.
    """
    retrofit, all_layers = retrofit_of(model), memories(model)
    for layer in layers:
        all_layers[layer].router = None
    unread = tuple(sorted({*retrofit.settings.unread, *layers}))
    retrofit.settings = retrofit.settings.updated("unread", unread)


def choose_unread(
    model: Any,
    held: HeldText,
    windows: Sequence[Int[Tensor, " _"]],
    *,
    reads: float,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Unread:
    """Find layers that can do without reads, and let them; the model's price stays as it is.

    Args:
        model: retrofitted, at rest, with routers that are fitted and a price at which it reads that much.
        held: text that judges.
        windows: tokens of the same text, for the price.
        reads: share of token x layer that may read.
        advance: is told the tokens of each finished window.
    """
    price = retrofit_of(model).control.price
    before, count = held.divergence(price=price)
    bound = HARDLY * count.share
    routed = [layer for layer, memory in memories(model).items() if memory.router is not None]
    candidates = sorted((layer for layer in routed if count.share_of(layer) < bound), key=count.share_of)
    for _ in range(TRIES):
        if not candidates:
            break
        tried = _without(model, held, windows, candidates, reads, advance)
        if tried.after <= before:
            give_up(model, tried.layers)
            return Unread(layers=tried.layers, price=tried.price, before=before, after=tried.after)
        candidates = candidates[: len(candidates) // 2]
    return Unread(layers=(), price=price, before=before, after=before)


def _without(
    model: Any,
    held: HeldText,
    windows: Sequence[Tensor],
    layers: Sequence[int],
    reads: float,
    advance: Callable[[int], None],
) -> Unread:
    """Judge the model without the reads of some layers, and put their routers back."""
    all_layers = memories(model)
    routers = {layer: all_layers[layer].router for layer in layers}
    try:
        for layer in layers:
            all_layers[layer].router = None
        price = price_for(model, windows, reads=reads, processes=held.processes, advance=advance)
        after, _ = held.divergence(price=price)
    finally:
        for layer, router in routers.items():
            all_layers[layer].router = router
    return Unread(layers=tuple(sorted(layers)), price=price, before=float("nan"), after=after)
