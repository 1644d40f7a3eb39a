"""What each threshold would do to each unit, measured no more often than it takes.

The shifts to try are a grid that is fixed before any unit is seen (:func:`shift_grid`), fine enough for any
model: some two hundred. Most of them need no pass of the model, by two facts.

1. *A unit whose routes are the same at two shifts has the same routes, and so the same loss, at every shift
   between.* A shift moves thresholds alone. What the first layer compares with its threshold does not depend
   on the shift, so each of its tokens changes its route at one shift at most. Where none did, the second
   layer sees the same at both shifts, and so on, layer by layer.
2. *What fails at a shift fails at all that skip more*, since losses are made monotone: a unit's loss counts
   from the first shift at which it occurs.

So the search halves the grid, drops what skips more than a shift that fails, and asks the model again about
the units whose routes differ, until none do or the shifts are neighbours. The curve it returns is the one
that trying every shift of the grid would give: the rule chooses on the whole grid, and its guarantee holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Logits beyond every prediction: those are cut at probabilities of 1e-6 and 1 - 1e-6, which is 13.8.
BEYOND = 14.0


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one shift does to some units.

    Attributes:
        losses: in [0, 1]; NaN where nothing is scored.
        skipped: share of the reads that could be skipped which are skipped; NaN where there are none.
        reads: share of the steps that read.
        routes: what each unit did, step by step and layer by layer; compared, not read.
    """

    losses: Float[Tensor, " units"]
    skipped: Float[Tensor, " units"]
    reads: Float[Tensor, " units"]
    routes: tuple[bytes, ...]


# From a shift and the indices of some units, in rising order, to what it does to them.
Judge = Callable[[float, Int[Tensor, " units"]], Judgement]


@dataclass(frozen=True, kw_only=True)
class RiskCurve:
    """What each shift of the threshold would do to each unit, from the most cautious shift to the most
    skipping one.

    Attributes:
        shifts: logits added to the thresholds, falling.
        losses: monotone: a unit's largest loss at this or a more cautious shift.
        skipped, reads: see :class:`Judgement`.
    """

    shifts: tuple[float, ...]
    losses: Float[Tensor, "units shifts"]
    skipped: Float[Tensor, "units shifts"]
    reads: Float[Tensor, "units shifts"]

    def rows(self, chosen: Int[Tensor, " rows"]) -> RiskCurve:
        """Return the curve of some units."""
        return RiskCurve(
            shifts=self.shifts,
            losses=self.losses[chosen],
            skipped=self.skipped[chosen],
            reads=self.reads[chosen],
        )


def shift_grid(thresholds: Sequence[float], *, resolution: float = 0.125) -> tuple[float, ...]:
    """Return the shifts to try, from one at which nothing is familiar to one at which everything is.

    Args:
        thresholds: where the thresholds stand now, in logits of predicted quality.
        resolution: distance of neighbouring shifts, in logits.
    """
    top, bottom = BEYOND - min(thresholds), -BEYOND - max(thresholds)
    return tuple(top - resolution * step for step in range(math.ceil((top - bottom) / resolution) + 1))


def joined(parts: Sequence[tuple[int, Judge]]) -> Judge:
    """Return one judge of the units of several: ``parts`` are (number of units, their judge)."""
    ends = torch.tensor([count for count, _ in parts]).cumsum(0)

    def judge(shift: float, units: Tensor) -> Judgement:
        place = torch.bucketize(units, ends, right=True)
        judged = [
            part(shift, units[place == index] - (int(ends[index]) - count))
            for index, (count, part) in enumerate(parts)
            if bool((place == index).any())
        ]
        return Judgement(
            losses=torch.cat([one.losses for one in judged]),
            skipped=torch.cat([one.skipped for one in judged]),
            reads=torch.cat([one.reads for one in judged]),
            routes=tuple(routes for one in judged for routes in one.routes),
        )

    return judge


def risk_curve(
    judge: Judge,
    *,
    units: int,
    shifts: Sequence[float],
    fails: Callable[[Float[Tensor, " units"]], bool] = lambda losses: False,
) -> RiskCurve:
    """Search a grid of shifts; see above.

    Args:
        judge: asks the model.
        units: how many there are.
        shifts: falling.
        fails: whether the units' losses at a shift are too large; larger losses must fail, too. The curve
            ends with the first shift that fails.
    """
    search = _Search(judge, units, shifts, fails)
    search.run()
    return search.curve()


class _Search:
    """The shifts asked about so far, by their index, each with what it does to every unit."""

    def __init__(
        self, judge: Judge, units: int, shifts: Sequence[float], fails: Callable[[Tensor], bool]
    ) -> None:
        self.judge, self.shifts, self.fails = judge, tuple(shifts), fails
        self.units, self.end = torch.arange(units), len(self.shifts) - 1
        self.asked: dict[int, Judgement] = {}

    def run(self) -> None:
        """Ask until neighbours do not differ, the most cautious shifts first."""
        self._ask(0, self.units)
        largest, spans = self.asked[0].losses, [(0, self.end)]
        while spans and spans[-1][0] < self.end:
            first, last = spans.pop()
            differing = self._differing(first, last)
            if len(differing) and last - first > 1:
                middle = (first + last) // 2
                self._ask(middle, differing, like=first)
                spans += [(middle, last), (first, middle)]
                continue
            if last not in self.asked:
                self._ask(last, differing, like=first)
            largest = torch.maximum(largest, self.asked[last].losses)
            if self.fails(largest):
                self.end = last

    def curve(self) -> RiskCurve:
        """Return what was found, shift by shift: a shift that was not asked about does what the nearest more
        cautious one does.
        """
        columns = [self.asked[0]]
        for index in range(1, self.end + 1):
            columns.append(self.asked.get(index, columns[-1]))
        losses, skipped, reads = (
            torch.stack([getattr(column, name) for column in columns], 1)
            for name in ("losses", "skipped", "reads")
        )
        return RiskCurve(
            shifts=self.shifts[: len(columns)], losses=losses.cummax(1).values, skipped=skipped, reads=reads
        )

    def _differing(self, first: int, last: int) -> Tensor:
        """Which units may do something else between two shifts; all of them while the last is unknown."""
        if last not in self.asked:
            return self.units
        pairs = zip(self.asked[first].routes, self.asked[last].routes, strict=True)
        return torch.tensor([index for index, (one, other) in enumerate(pairs) if one != other]).long()

    def _ask(self, index: int, units: Tensor, *, like: int | None = None) -> None:
        """Ask about some units at a shift; the others do what they do at the shift ``like``."""
        answer = self.judge(self.shifts[index], units)
        # A unit without scored answers loses none.
        answer = replace(answer, losses=answer.losses.nan_to_num(0.0))
        self.asked[index] = answer if like is None else _merged(self.asked[like], answer, units)
        if self.fails(self.asked[index].losses):
            self.end = min(self.end, index)


def _merged(rest: Judgement, answer: Judgement, units: Tensor) -> Judgement:
    """Put the answer about some units into what holds for the rest."""
    routes = list(rest.routes)
    for unit, own in zip(units.tolist(), answer.routes, strict=True):
        routes[unit] = own
    return Judgement(
        losses=rest.losses.index_copy(0, units, answer.losses),
        skipped=rest.skipped.index_copy(0, units, answer.skipped),
        reads=rest.reads.index_copy(0, units, answer.reads),
        routes=tuple(routes),
    )
