"""Loss and divergence by position, at several shares of reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchcram.pretrained.retrofit.install import reading, retrofit_of
from torchcram.pretrained.retrofit.judge import ByPosition, Way, judge_ways
from torchcram.pretrained.retrofit.router_fit import price_for

# Tokens of a block of positions.
BLOCK = 256
# Shares of token x layer at which a model is judged, beside everything and nothing.
SHARES = (0.25, 0.10)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A model at one share of reads, over some positions.

    Attributes:
        way: name of the share.
        start: first position.
        end: behind the last one.
        reads: share of token x layer that read, over all positions.
        loss: of the next token, in nats.
        loss_change: over the untouched model.
        divergence: from the untouched model, in nats a token.
        agreement: share of likeliest next tokens that are the same.
    """

    way: str
    start: int
    end: int
    reads: float
    loss: float
    loss_change: float
    divergence: float
    agreement: float


def prices(
    model: Any,
    select: Sequence[Tensor],
    *,
    shares: Sequence[float] = SHARES,
    advance: Callable[[int], None] = lambda tokens: None,
) -> dict[float, float]:
    """Return the price of a read, in nats, for each share of reads, found on select text."""
    return {share: price_for(model, select, reads=share, advance=advance) for share in shares}


def ways_of(model: Any, price_of: Mapping[float, float]) -> dict[str, Way]:
    """Return what is judged: as saved, at each share, and without reads. A model whose price was never set is
    not judged as saved if there are shares.
    """

    def at(price: float) -> Way:
        return lambda: reading(model, price=price)

    def as_saved() -> AbstractContextManager[None]:
        return reading(model)

    saved = {} if price_of and retrofit_of(model).settings.price == 0 else {"as saved": as_saved}
    return {
        **saved,
        **{f"{share:.0%} reads": at(price) for share, price in price_of.items()},
        "no reads": lambda: reading(model, "none"),
    }


def judge_by_position(
    model: Any,
    windows: Sequence[Tensor],
    ways: Mapping[str, Way],
    *,
    block: int = BLOCK,
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[Stretch]:
    """Judge a model over all positions and over blocks of them.

    Args:
        model: retrofitted, at rest.
        windows: tokens that nothing was fitted to.
        ways: by name; "all reads", the untouched model, is judged beside them.
        block: tokens of a block.
        advance: is told the tokens of each finished window.
    """
    everything = {"all reads": lambda: reading(model, "all"), **ways}
    judged = judge_ways(model, windows, everything, advance=advance)
    length = max(len(ids) for ids in windows)
    spans = [(0, length)]
    if length > block:
        spans += [(start, min(start + block, length)) for start in range(0, length, block)]
    return [_stretch(name, each, *span) for name, each in judged.items() for span in spans]


def _stretch(way: str, positions: ByPosition, start: int, end: int) -> Stretch:
    means = positions.between(start, end)
    return Stretch(
        way=way,
        start=start,
        end=end,
        reads=means.reads,
        loss=positions.loss_between(start, end) + means.loss_change,
        loss_change=means.loss_change,
        divergence=means.divergence,
        agreement=means.agreement,
    )
