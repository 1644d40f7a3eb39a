"""The retrofit itself, as a contender; ablations change what its memories say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from torchcram.pretrained.retrofit.install import reading
from torchcram.pretrained.retrofit.judge import Way
from torchcram.pretrained.retrofit.router_fit import price_for
from torchcram.pretrained.rivals.contender import Advance, Contender, Point, cache_share


class Retrofitted(Contender):
    """Near attention, semantic memory, and reads where the router asks for them.

    Args:
        prices: of a read, in nats, for shares of reads; those that are not given are found on select text.
    """

    name = "this retrofit"
    source = "arXiv 2602.12204"

    def __init__(self, *, prices: Mapping[float, float] | None = None):
        self.prices = dict(prices or {})

    @contextmanager
    def acting(self, model: Any) -> Iterator[None]:
        """Change what the memories say, for a while; this one changes nothing."""
        del model
        yield

    def points(
        self, model: Any, select: Sequence[Tensor], shares: Sequence[float], *, advance: Advance
    ) -> list[Point]:
        """Return a point at the price for each share, and one without reads."""
        cache = cache_share(model, context=max(len(ids) for ids in select))
        points = []
        for share in shares:
            price = self.prices.get(share)
            if price is None:
                with self.acting(model):
                    price = price_for(model, select, reads=share)
            points.append(Point(label=f"{share:.0%} reads", way=self._at(model, price), cache=cache))
            advance(1)
        return [*points, Point(label="no reads", way=self._at(model, None), cache=cache)]

    def _at(self, model: Any, price: float | None) -> Way:
        @contextmanager
        def way() -> Iterator[None]:
            with reading(model, "none" if price is None else "routed", price=price), self.acting(model):
                yield

        return way
