"""Whether a claim holds: figures by method with their spread, goals met by how many seeds, and one word.

Rows of different code are never mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from torchcram.reproduce.claim import Claim, Goal, Pair, Row
from torchcram.training.presets import PRESETS

Status = Literal["reproduced", "partly", "not", "measured", "stale"]
# Seeds without which nothing counts as reproduced.
LEAST_SEEDS = {"mini": 3, "demo": 5, "full": 3}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The rows of one method at one scale, all of one code.

    Attributes:
        rows: one a seed.
        stale: whether that code is not this one.
    """

    rows: list[Row]
    stale: bool

    def spread(self, figure: str) -> dict[str, float] | None:
        """Return mean, least and greatest value of a figure, and how many runs have it; None if none has."""
        values = [row[figure] for row in self.rows if row.get(figure) is not None]
        return (
            {"mean": mean(values), "least": min(values), "greatest": max(values), "runs": len(values)}
            if values
            else None
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How one goal came out: met by ``met`` of the ``seeds`` fresh runs of its method; no seeds where what
    it is compared with has none.
    """

    goal: Goal
    met: int
    seeds: int

    @property
    def reached(self) -> bool:
        """Whether every seed meets it."""
        return 0 < self.seeds == self.met


def grouped(rows: Sequence[Row], *, scale: str, source: str) -> dict[str, Group]:
    """Return the rows of a scale by method: those of this code, else those of the code that ran last, as
    stale.
    """
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        if row["scale"] == scale:
            by_method.setdefault(row["method"], []).append(row)
    groups = {}
    for method, of_method in by_method.items():
        sources = {row["source"] for row in of_method}
        chosen = (
            source
            if source in sources
            else max(of_method, key=lambda row: str(row.get("finished")))["source"]
        )
        groups[method] = Group(
            rows=[row for row in of_method if row["source"] == chosen], stale=chosen != source
        )
    return groups


def verdicts(claim: Claim, groups: Mapping[str, Group], *, scale: str) -> list[Verdict]:
    """Judge every goal of a scale by the fresh rows."""
    fresh = {name: group.rows for name, group in groups.items() if not group.stale}
    judged = []
    for goal in claim.goals_at(scale):
        rows = fresh.get(goal.method, []) if all(fresh.get(name) for name in goal.than) else []
        judged.append(Verdict(goal=goal, met=sum(goal.met(row, fresh) for row in rows), seeds=len(rows)))
    return judged


def status_of(claim: Claim, groups: Mapping[str, Group], *, scale: str, seeds: int) -> Status:
    """Return ``reproduced`` if every goal is met by every seed and each method has fresh runs of that many,
    ``partly`` if some goal is, else ``not``.

    Where there is no goal to meet: ``measured``; where all rows are of other code: ``stale``.
    """
    if not claim.goals_at(scale):
        return "measured"
    if groups and all(group.stale for group in groups.values()):
        return "stale"
    reached = [verdict.reached for verdict in verdicts(claim, groups, scale=scale)]
    return (
        "reproduced"
        if all(reached) and not _missing(claim, groups, scale, seeds)
        else "partly"
        if any(reached)
        else "not"
    )


def _missing(claim: Claim, groups: Mapping[str, Group], scale: str, seeds: int) -> int:
    """How many fresh runs are lacking to so many of every method."""
    fresh = {name: len(group.rows) for name, group in groups.items() if not group.stale}
    return sum(max(0, seeds - fresh.get(method.name, 0)) for method in claim.methods_at(scale))


def scale_record(claim: Claim, rows: Sequence[Row], *, scale: str, source: str) -> dict[str, Any]:
    """Return what ``status.json`` holds of one scale, judged by the rows alone; ``holes`` counts the runs
    that are lacking.
    """
    groups = grouped(rows, scale=scale, source=source)
    needed = LEAST_SEEDS[scale] if claim.seeds is None else claim.seeds
    figures = {
        method: {figure: spread for figure in claim.figures if (spread := group.spread(figure)) is not None}
        | ({"stale": True} if group.stale else {})
        for method, group in groups.items()
    }
    goals = [
        {
            "method": verdict.goal.method,
            "figure": verdict.goal.figure,
            "bound": verdict.goal.words,
            "met": verdict.met,
            "seeds": verdict.seeds,
        }
        for verdict in verdicts(claim, groups, scale=scale)
    ]
    seeds = min((len(group.rows) for group in groups.values()), default=0)
    holes = _missing(claim, groups, scale, needed)
    return {
        "status": status_of(claim, groups, scale=scale, seeds=needed),
        "seeds": seeds,
        "holes": holes,
        "source": source,
        "figures": figures,
        "goals": goals,
    }


def paired(pair: Pair, rival: str, groups: Mapping[str, Group]) -> dict[str, list[float]]:
    """Return by how much a method's figures exceed a rival's, for each seed of which there are fresh rows
    of both.
    """
    ours, theirs = (
        {row["seed"]: row for row in groups[name].rows} if name in groups and not groups[name].stale else {}
        for name in (pair.ours, rival)
    )
    seeds = sorted(set(ours) & set(theirs))
    both = {
        figure: [(ours[seed].get(figure), theirs[seed].get(figure)) for seed in seeds]
        for figure in pair.figures
    }
    return {
        figure: [a - b for a, b in values if a is not None and b is not None]
        for figure, values in both.items()
    }


def status_record(claim: Claim, scales: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the whole ``status.json``; the status is that of the largest scale measured, with this code if
    any was.
    """
    measured = [scale for scale in PRESETS if scale in scales and scales[scale]["figures"]]
    chosen = [scale for scale in measured if scales[scale]["status"] != "stale"] or measured
    return {
        "claim": claim.name,
        "status": scales[chosen[-1]]["status"] if chosen else "not",
        "scales": {scale: scales[scale] for scale in measured},
    }
