"""The figure of a claim: curves over training, a sweep, a frontier, or dots, made from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchcram.report.consolidation_curve import Counts, Points
from torchcram.report.style import INK, MUTED, PHASE_ROOM, VERMILION, WIDTH, percent_labels, rate_axis, styled
from torchcram.reproduce.claim import Claim, Method, is_share
from torchcram.reproduce.headline import curves_of, draw_course, draw_curves
from torchcram.reproduce.lower_bound import static_accuracy
from torchcram.reproduce.status import Group

COLOURS = (
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#B8860B",
    "#AA3377",
    "#56B4E9",
    "#6B7785",
    "#CC79A7",
    "#1F2933",
    "#8C6D31",
    "#332288",
    "#7BC043",
    "#FF5A5F",
    "#5A9A9A",
)
PAPER_EXPONENT = 0.43


@styled
def claim_figure(claim: Claim, groups: Mapping[str, Group]) -> Figure | None:
    """Draw what answers a claim's question; None if nothing of it has been measured.

    Args:
        claim: whose picture is drawn.
        groups: rows by method, at one scale.
    """
    shown = [method for method in _drawn(claim) if method.name in groups and not groups[method.name].stale]
    if not shown:
        return None
    figure = Figure(figsize=(WIDTH, _height(claim, len(shown))))
    if claim.picture.kind == "dots":
        _dots(figure, claim, shown, groups)
        return figure
    if claim.picture.course:
        axes = _below_course(figure, claim, shown, groups)
    else:
        axes = figure.subplots()
        axes.set_title(claim.picture.title)
    if claim.picture.kind == "training":
        _training(axes, claim, shown, groups)
    elif claim.picture.kind == "sweep":
        _sweep(axes, claim, shown, groups)
    elif claim.picture.kind == "bound":
        _bound(axes, claim, shown, groups)
    elif claim.picture.kind == "exposures":
        _exposures(axes, claim, shown, groups)
    else:
        _frontier(axes, claim, shown, groups)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure


def _height(claim: Claim, methods: int) -> float:
    if claim.picture.kind == "dots":
        return max(3.4, 0.33 * methods + 1.4)
    return 8.0 if claim.picture.course else 5.0


def _below_course(figure: Figure, claim: Claim, shown: Sequence[Method], groups: Mapping[str, Group]) -> Axes:
    """Draw the course above, and return the axes for the rest."""
    named = [claim.method(name) for name in claim.picture.course if name in {one.name for one in shown}]
    drawn = [method for method in named if curves_of(groups[method.name])]
    if not drawn or drawn[0].name != claim.picture.course[0]:
        return figure.subplots()
    colours = _colours(claim)
    above, below = figure.subplots(2, 1, height_ratios=[1.2, 1])
    draw_course(above, drawn, groups, {method.name: colours[_family(method)] for method in drawn})
    above.set_title(claim.picture.title, pad=PHASE_ROOM)
    above.legend(loc="upper right", bbox_to_anchor=(1.0, 0.94), fontsize=8.5)
    return below


def _drawn(claim: Claim) -> list[Method]:
    """Return the methods that the picture is about, measured or not."""
    return [method for method in claim.methods if method.name in (claim.picture.methods or [method.name])]


def _family(method: Method) -> str:
    return method.family or method.title


def _colours(claim: Claim) -> dict[str, str]:
    """Return a colour for each family, the same at every scale."""
    return dict(zip(dict.fromkeys(_family(method) for method in _drawn(claim)), cycle(COLOURS), strict=False))


def _values(group: Group, figure: str) -> list[float]:
    return [float(row[figure]) for row in group.rows if row.get(figure) is not None]


def _label(figure: str) -> str:
    return figure.replace("_", " ")


def _training(axes: Axes, claim: Claim, shown: Sequence[Method], groups: Mapping[str, Group]) -> None:
    """Each run a thin line, the mean of a method's runs (over the steps of the shortest) a bold one."""
    colours = _colours(claim)
    for method in shown:
        colour = colours[_family(method)]
        if curves := curves_of(groups[method.name]):
            draw_curves(axes, curves, colour=colour, label=method.title, bold=False)
    axes.set_xlabel("training step")
    rate_axis(axes, label=_label(claim.picture.y))


def _sweep(axes: Axes, claim: Claim, shown: Sequence[Method], groups: Mapping[str, Group]) -> None:
    swept = [
        method for method in shown if method.at is not None and _values(groups[method.name], claim.picture.y)
    ]
    at = [method.at or 0.0 for method in swept]
    for figure, colour, style in ((claim.picture.y, VERMILION, "o-"), ("any_layer_floor", INK, "--")):
        values = [_values(groups[method.name], figure) for method in swept]
        if all(values) and values:
            axes.plot(
                at, [float(np.mean(value)) for value in values], style, color=colour, label=_label(figure)
            )
    for place, method in zip(at, swept, strict=True):
        runs = _values(groups[method.name], claim.picture.y)
        axes.plot([place] * len(runs), runs, ".", color=VERMILION, alpha=0.5)
    axes.set_xlabel(claim.picture.x)
    percent_labels(axes.xaxis)
    rate_axis(axes, label=_label(claim.picture.y))


def _points(
    axes: Axes, claim: Claim, shown: Sequence[Method], groups: Mapping[str, Group], *, x: str
) -> None:
    """Each run a faint dot, the means of a family's methods a line."""
    means: dict[str, list[tuple[float, float]]] = {}
    colours = _colours(claim)
    for method in shown:
        runs = [_values(groups[method.name], figure) for figure in (x, claim.picture.y)]
        if all(runs):
            axes.plot(*runs, ".", color=colours[_family(method)], alpha=0.4)
            means.setdefault(_family(method), []).append((float(np.mean(runs[0])), float(np.mean(runs[1]))))
    for name, points in means.items():
        axes.plot(
            *zip(*sorted(points), strict=True),
            "o-" if len(points) > 1 else "D",
            color=colours[name],
            linewidth=1.2,
            markersize=5,
            label=name,
        )


def _frontier(axes: Axes, claim: Claim, shown: Sequence[Method], groups: Mapping[str, Group]) -> None:
    """What each method answers at which reads; dashed: the reads that an oracle needs for every answer."""
    _points(axes, claim, shown, groups, x=claim.picture.x)
    floors = [floor for method in shown for floor in _values(groups[method.name], "any_layer_floor")]
    if claim.picture.x == "any_layer_read_rate" and floors:
        axes.axvline(
            float(np.mean(floors)),
            color=INK,
            linewidth=1.4,
            linestyle=(0, (5, 3)),
            zorder=1,
            label=_label("any_layer_floor"),
        )
    axes.set_xscale("symlog", linthresh=0.001, linscale=0.35)
    axes.set(
        xlim=(-0.0002, 1.3),
        ylim=(-0.02, 1.04),
        xlabel=_label(claim.picture.x),
        ylabel=_label(claim.picture.y),
    )
    axes.set_xticks([0.0, 0.001, 0.01, 0.1, 1.0])
    percent_labels(axes.xaxis)
    percent_labels(axes.yaxis)


def _bound(axes: Axes, claim: Claim, shown: Sequence[Method], groups: Mapping[str, Group]) -> None:
    """What each method answers at which reads; dashed: what a static reader without parametric memory can
    reach.
    """
    _points(axes, claim, shown, groups, x="any_layer_read_rate")
    row = groups[shown[0].name].rows[0]
    share, values = float(row["query_share"]), int(row["values"])
    read_shares = np.linspace(0.0, 1.4 * share, 141)
    bound = [static_accuracy(float(reads), query_share=share, values=values) for reads in read_shares]
    axes.plot(
        read_shares, bound, color=INK, linewidth=1.4, linestyle=(0, (5, 3)), label="bound on static routing"
    )
    axes.set(
        xlim=(-0.001, 1.4 * share),
        ylim=(0, 1.04),
        xlabel=_label("any_layer_read_rate"),
        ylabel=_label(claim.picture.y),
    )
    percent_labels(axes.xaxis)
    percent_labels(axes.yaxis)


def _exposures(axes: Axes, claim: Claim, shown: Sequence[Method], groups: Mapping[str, Group]) -> None:
    """Each run a thin line, the runs of a method pooled a bold one; dashed: the paper's slope."""
    colours = _colours(claim)
    for method in shown:
        colour = colours[_family(method)]
        rows = [row for row in groups[method.name].rows if row.get("curve_queries")]
        for row in rows:
            _rates(
                axes,
                np.array(row["curve_encounters"]),
                np.array(row["curve_queries"]),
                np.array(row["curve_reads"]),
                color=colour,
                alpha=0.35,
            )
        if rows:
            queries, reads = (
                np.sum([row[name] for row in rows], 0) for name in ("curve_queries", "curve_reads")
            )
            x = np.array(rows[0]["curve_encounters"])
            _rates(axes, x, queries, reads, color=colour, label=method.title)
    slope = np.array([1.0, 200.0])
    axes.plot(
        slope,
        slope**-PAPER_EXPONENT,
        color=INK,
        linewidth=1,
        linestyle=(0, (5, 3)),
        label=f"the paper's exponent, {PAPER_EXPONENT}",
    )
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(0.003, 1.2),
        xlabel="encounters of the pattern",
        ylabel="share of queries that read",
    )
    percent_labels(axes.yaxis)


def _rates(
    axes: Axes,
    x: Points,
    queries: Counts,
    reads: Counts,
    *,
    color: str,
    alpha: float = 1.0,
    label: str | None = None,
) -> None:
    asked = queries > 0
    axes.plot(
        x[asked],
        reads[asked] / queries[asked],
        "o-",
        color=color,
        alpha=alpha,
        linewidth=2.0 if label else 0.7,
        markersize=4 if label else 0,
        label=label,
    )


def _dots(figure: Figure, claim: Claim, shown: Sequence[Method], groups: Mapping[str, Group]) -> None:
    """One method below the other: each run a faint dot, the mean a full one, the first method's mean a
    line to compare with.
    """
    for axes, name in zip(
        figure.subplots(1, 2, sharey=True), (claim.picture.y, claim.picture.x), strict=True
    ):
        for place, method in enumerate(shown):
            values = _values(groups[method.name], name)
            if values:
                axes.plot(values, [place] * len(values), "o", color=MUTED, alpha=0.4, markersize=4)
                axes.plot([np.mean(values)], [place], "o", color=VERMILION, markersize=7)
        first = _values(groups[shown[0].name], name)
        if first:
            axes.axvline(float(np.mean(first)), color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
        axes.set_xlabel(_label(name))
        if is_share(name):
            percent_labels(axes.xaxis)
        axes.set_yticks(range(len(shown)), [method.title for method in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
    figure.axes[0].set_title(claim.picture.title)
