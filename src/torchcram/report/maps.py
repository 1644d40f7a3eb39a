"""The maps of a report: which memory answered which step.

Each function takes the record of a run, and returns None if it has no routes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from torchcram.report.records import RunRecord
from torchcram.report.style import BLUE, INK, PAPER, ROUTE_COLOURS, VERMILION, WIDTH, percent_labels, styled
from torchcram.report.wording import count, percent
from torchcram.types import Route

# A route map shows so many steps in a row: a step stays wider than a pixel.
STEPS_PER_ROW = 256


@styled
def route_map_figure(record: RunRecord) -> Figure | None:
    """Draw which memory answered each step in each layer of one sequence; long sequences are wrapped into
    rows.
    """
    if record.route_map is None or not record.route_map.get("routes"):
        return None
    routes = np.array(record.route_map["routes"])
    layers, time = routes.shape
    rows = -(-time // STEPS_PER_ROW)
    figure = Figure(figsize=(WIDTH, 1.1 + rows * (0.55 + 0.26 * layers)))
    panels = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for row, axes in enumerate(panels):
        _route_row(axes, record, routes, row * STEPS_PER_ROW, min(STEPS_PER_ROW, time))
    panels[0].set_title(_route_title(record, routes))
    moments = record.route_map.get("time")
    panels[-1].set_xlabel(
        f"step (all of them last {moments[-1]:,.1f} in the task's unit of time)" if moments else "step"
    )
    figure.legend(
        handles=_route_legend(record),
        loc="outside lower center",
        ncols=5,
        fontsize=8.5,
        handletextpad=0.4,
        columnspacing=1.6,
    )
    return figure


def _route_row(
    axes: Axes, record: RunRecord, routes: Int[np.ndarray, "layers time"], start: int, width: int
) -> None:
    layers, time = routes.shape
    stop, room = min(start + width, time), 0.32 * (layers + 1) / 2
    colours = ListedColormap([ROUTE_COLOURS[route] for route in Route])
    # Layer 1 stands at the bottom, as it does in a drawing of a network.
    axes.imshow(
        routes[:, start:stop],
        cmap=colours,
        vmin=0,
        vmax=2,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(start, stop, 0.5, layers + 0.5),
    )
    axes.hlines(np.arange(1.5, layers), start, stop, color=PAPER, linewidth=1.5)
    for _, flags, marker in _query_marks(record, time):
        at = np.flatnonzero(flags[start:stop]) + start + 0.5
        axes.plot(at, np.full(len(at), layers + 0.5 + room / 2), **marker)
    axes.set(xlim=(start, start + width), ylim=(0.5, layers + 0.5 + room), yticks=range(1, layers + 1))
    axes.set_yticklabels([f"layer {layer}" for layer in range(1, layers + 1)])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _query_marks(record: RunRecord, time: int) -> list[tuple[str, Bool[np.ndarray, " time"], dict[str, Any]]]:
    """Label, steps and marker of the queries that parameters can answer, and of those that need a read."""
    route_map = record.route_map or {}
    query, needs = (
        np.array(route_map.get(key) or [False] * time, dtype=bool) for key in ("query", "needs_read")
    )
    style: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0}
    known = {**style, "marker": "o", "markersize": 4.5, "color": BLUE}
    unknown = {**style, "marker": "v", "markersize": 6.5, "color": VERMILION}
    return [("query, known by heart", query & ~needs, known), ("query, needs a read", needs, unknown)]


def _route_title(record: RunRecord, routes: Int[np.ndarray, "layers time"]) -> str:
    read = (routes == Route.EPISODIC).any(0)
    known, needed = (flags for _, flags, _ in _query_marks(record, routes.shape[1]))
    reads = f"{count(int(read.sum()))} of {count(len(read))} steps read"
    if not (known.any() or needed.any()):
        return reads
    return (
        f"{reads}: {read[needed].sum()} of the {needed.sum()} queries that need it, "
        f"{read[known].sum()} of the {known.sum()} known by heart"
    )


def _route_legend(record: RunRecord) -> list[Line2D]:
    names = {
        Route.WORKING: "working memory",
        Route.SEMANTIC: "semantic memory",
        Route.EPISODIC: "episodic memory: a read",
    }
    handles = [
        Line2D([], [], linestyle="none", marker="s", color=ROUTE_COLOURS[route], markersize=8, label=name)
        for route, name in names.items()
    ]
    marks = [Line2D([], [], label=label, **marker) for label, _, marker in _query_marks(record, 1)]
    return [*handles, *marks] if any((record.route_map or {}).get("query") or ()) else handles


@styled
def routes_by_slice_figure(record: RunRecord) -> Figure | None:
    """Draw which memory answered each kind of step: the summary's shares, else those of the last
    evaluation.
    """
    given = [
        line["routes_by_slice"]
        for line in (*record.evaluations, record.summary or {})
        if line.get("routes_by_slice")
    ]
    if not given:
        return None
    routes = given[-1]
    figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * len(routes)))
    axes = figure.subplots()
    left = np.zeros(len(routes))
    for route in Route:
        shares = np.array([shares[route] for shares in routes.values()], dtype=float)
        axes.barh(
            [name.replace("_", " ") for name in routes],
            shares,
            left=left,
            color=ROUTE_COLOURS[route],
            height=0.62,
            label=f"{route.name.lower()} memory",
        )
        for row, (share, start) in enumerate(zip(shares, left, strict=True)):
            if share >= 0.07:
                axes.text(
                    start + share / 2,
                    row,
                    percent(share),
                    color=INK if route == Route.WORKING else PAPER,
                    ha="center",
                    va="center",
                    fontsize=8.5,
                )
        left = left + shares
    axes.set(xlim=(0, 1))
    axes.set_title(_slices_title(routes), pad=30)
    axes.invert_yaxis()
    percent_labels(axes.xaxis)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.012, 0.98), ncols=3, fontsize=8.5)
    return figure


def _slices_title(routes: dict[str, list[float]]) -> str:
    if not {"recurring", "novel"} <= set(routes):
        return "Which memory answers what"
    without = {kind: percent(1 - routes[kind][Route.EPISODIC]) for kind in ("recurring", "novel")}
    return (
        f"Answered without a read: {without['recurring']} of the recurring queries, "
        f"{without['novel']} of the novel ones"
    )
