"""All contenders before the same judge: what each of them costs, and how far it then is from the untouched
model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from torchcram.pretrained.retrofit.judge import Way, judge_ways
from torchcram.pretrained.rivals.contender import Contender, Point, Tally
from torchcram.pretrained.rivals.table import CONTENDERS
from torchcram.report.style import (
    BLUE,
    MUTED,
    OTHER_COLOURS,
    PURPLE,
    VERMILION,
    WIDTH,
    percent_labels,
    styled,
)

SHARES = (0.5, 0.25, 0.1)
MARKERS = "osD^vPX*"
COLOURS = (BLUE, MUTED, "#9AA5B1", VERMILION, PURPLE, *OTHER_COLOURS)
Progress = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A contender at one budget.

    Attributes:
        contender: its name.
        label: of the budget.
        reads: share of token x layer that read; who looks at a part of what is remote reads in part.
        cache: entries that are kept behind a window, as a share of the untouched model's.
        divergence: from the untouched model, in nats a token.
        loss_change: of the next token, in nats.
        agreement: share of likeliest next tokens that are the same.
    """

    contender: str
    label: str
    reads: float
    cache: float
    divergence: float
    loss_change: float
    agreement: float


def compare(
    model: Any,
    *,
    fit: Sequence[Tensor],
    select: Sequence[Tensor],
    test: Sequence[Tensor],
    shares: Sequence[float] = SHARES,
    contenders: Sequence[Callable[[], Contender]] = CONTENDERS,
    progress: Progress = lambda name, total: lambda done: None,
) -> list[Result]:
    """Fit all contenders, set their budgets, and judge them.

    Args:
        model: retrofitted, at rest.
        fit: tokens of windows that rivals learn from.
        select: tokens of windows on which budgets are set.
        test: tokens of windows that judge.
        shares: of reads, in falling order.
        contenders: what makes them.
        progress: is told of each stage and its length, and returns what is told of each finished part.
    """
    made = [make() for make in contenders]
    advance = progress("learns", len(made) * sum(map(len, fit)))
    for contender in made:
        contender.fit(model, fit, advance=advance)
    points: dict[tuple[str, str], Point] = {}
    advance = progress("budgets", len(made) * len(shares))
    for contender in made:
        for point in contender.points(model, select, shares, advance=advance):
            points[contender.name, point.label] = point
    tallies: dict[str, list[Tally]] = {" | ".join(name): [] for name in points}
    ways = {
        " | ".join(name): _remembering(point.way, tallies[" | ".join(name)]) for name, point in points.items()
    }
    found = judge_ways(model, test, ways, advance=progress("is judged", sum(map(len, test))))
    results = []
    for (name, label), point in points.items():
        means = found[f"{name} | {label}"].between()
        results.append(
            Result(
                contender=name,
                label=label,
                reads=means.reads,
                cache=_kept(tallies[f"{name} | {label}"]) if point.cache is None else point.cache,
                divergence=means.divergence,
                loss_change=means.loss_change,
                agreement=means.agreement,
            )
        )
    return results


def _remembering(way: Way, tallies: list[Tally]) -> Way:
    """Keep what a contender counted for itself."""

    @contextmanager
    def again() -> Iterator[Any]:
        with way() as own:
            yield own
        if own is not None:
            tallies.append(own)

    return again


def _kept(tallies: Sequence[Tally]) -> float:
    return float(sum(each.kept[0] for each in tallies) / sum(each.kept[1] for each in tallies))


@styled
def frontier_figure(results: Sequence[Result]) -> Figure:
    """Draw divergence over reads and over cache bytes."""
    figure = Figure(figsize=(WIDTH, 4.2))
    reads, cache = figure.subplots(1, 2, sharey=True)
    for number, name in enumerate(dict.fromkeys(each.contender for each in results)):
        rows = [each for each in results if each.contender == name]
        style = {
            "marker": MARKERS[number % len(MARKERS)],
            "color": COLOURS[number % len(COLOURS)],
            "linewidth": 2.4 if number == 0 else 1.2,
            "markersize": 6 if number == 0 else 4.5,
            "zorder": 4 if number == 0 else 3,
            "label": name,
        }
        for axes, cost in ((reads, "reads"), (cache, "cache")):
            _line(axes, [(getattr(each, cost), each.divergence) for each in rows], style)
    reads.set(title="Quality for reads", xlabel="reads (token x layer)", ylabel="divergence, nats a token")
    cache.set(title="Quality for memory", xlabel="cache bytes, of the untouched model's")
    for axes in (reads, cache):
        axes.set_yscale("log")
        percent_labels(axes.xaxis)
    cache.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure


def _line(axes: Axes, points: list[tuple[float, float]], style: dict[str, Any]) -> None:
    x, y = zip(*sorted(points), strict=True)
    axes.plot(x, y, **style)
