"""Figures of a comparison on irregular series: quality against attention share, calibration, and one
patient's routes beside the measurements.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from torchcram.report.style import (
    INK,
    MUTED,
    ROUTE_COLOURS,
    VERMILION,
    WIDTH,
    end_labels,
    percent_labels,
    styled,
)
from torchcram.series.comparison.methods import METHODS
from torchcram.series.comparison.table import OURS, SCORES, Results
from torchcram.types import Route

COLOURS = dict(
    zip(METHODS, (VERMILION, "#009E73", "#0072B2", "#56B4E9", "#AA3377", "#6B7785", "#B8860B"), strict=True)
)


@styled
def quality_figure(results: Results, *, figure: str) -> Figure | None:
    """Draw each method's score against its attention share, with the spread over splits; a method without
    a share is a line. None without results.
    """
    if not results:
        return None
    drawing = Figure(figsize=(WIDTH, 4.6))
    axes = drawing.subplots()
    labels, points = [], []
    for name, splits in results.items():
        scores = [one[figure] for one in splits.values()]
        shares = [one["attention_share"] for one in splits.values() if one["attention_share"] is not None]
        mean, deviation = statistics.mean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0
        if shares:
            axes.errorbar(
                statistics.mean(shares),
                mean,
                yerr=deviation,
                fmt="o",
                markersize=8,
                capsize=3,
                color=COLOURS[name],
                linewidth=1.2,
            )
            points.append((statistics.mean(shares), mean, name))
        else:
            axes.axhline(mean, color=COLOURS[name], linewidth=1.1, linestyle=(0, (5, 3)))
            labels.append((mean, name, COLOURS[name]))
    # A margin on the left for methods that read nothing at all.
    axes.set(
        xlim=(-0.04, 1.12),
        xlabel="attention share: keys scanned, over those of dense causal attention",
        ylabel=SCORES[figure],
    )
    percent_labels(axes.xaxis)
    axes.set_title(
        f"{SCORES[figure]} on test data and what it costs in attention (bars: standard deviation over splits)"
    )
    end_labels(axes, labels)
    _name(axes, points)
    return drawing


def _name(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write names beside points: the lower one of two that lie together gets its name below, the others
    above.
    """
    low, high = axes.get_ylim()
    for share, mean, name in points:
        crowded = any(
            0 < above - mean < 0.06 * (high - low) and abs(beside - share) < 0.1
            for beside, above, _ in points
        )
        axes.annotate(
            name,
            (share, mean),
            xytext=(9, -13 if crowded else 5),
            textcoords="offset points",
            color=COLOURS[name],
            fontweight="bold",
        )


@styled
def calibration_figure(results: Results) -> Figure | None:
    """Draw how often predictions of each probability came true, all splits of a method together.

    None without results.
    """
    if not results:
        return None
    drawing = Figure(figsize=(WIDTH, 5.0))
    axes = drawing.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=(0, (2, 2)))
    axes.annotate("perfect", (0.9, 0.9), xytext=(-4, 6), textcoords="offset points", color=MUTED, ha="right")
    for name, splits in results.items():
        said, came = _pooled([part for one in splits.values() for part in one["calibration"]])
        axes.plot(
            said,
            came,
            marker="o",
            markersize=4.5,
            linewidth=2.4 if name == OURS else 1.3,
            color=COLOURS[name],
            label=name,
            zorder=3 if name == OURS else 2,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability that was said", ylabel="share that came true")
    axes.set_title("Calibration on test data")
    axes.legend(loc="lower right")
    percent_labels(axes.xaxis)
    percent_labels(axes.yaxis)
    return drawing


def _pooled(parts: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Return mean prediction and share that came true in tenths, weighted by counts."""
    bins: dict[int, list[dict[str, Any]]] = {}
    for part in parts:
        bins.setdefault(min(int(10 * part["said"]), 9), []).append(part)
    pooled = [(sum(p["count"] for p in members), members) for _, members in sorted(bins.items())]
    return tuple(
        [sum(p["count"] * p[key] for p in members) / count for count, members in pooled]
        for key in ("said", "came")
    )  # type: ignore[return-value]


@styled
def patient_figure(stay: dict[str, Any]) -> Figure:
    """Draw which memory answered each step of one stay in each layer, above what was measured, on the same
    clock.
    """
    hours, routes = np.array(stay["hours"]), np.array(stay["routes"])
    measured = {name: part for name, part in stay["measured"].items() if part["hours"]}
    drawing = Figure(figsize=(WIDTH, 1.2 + 0.5 * len(routes) + 0.72 * len(measured)))
    panels = drawing.subplots(
        1 + len(measured),
        1,
        sharex=True,
        height_ratios=[0.55 * len(routes), *[0.8] * len(measured)],
        squeeze=False,
    )[:, 0]
    _routes(panels[0], hours, routes)
    for axes, (name, part) in zip(panels[1:], measured.items(), strict=True):
        axes.plot(part["hours"], part["values"], marker="o", markersize=3, linewidth=1.0, color=INK)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    panels[-1].set(xlabel="hours since admission", xlim=(-0.5, 48.5))
    read = int((routes == Route.EPISODIC).any(0).sum())
    panels[0].set_title(
        f"One test patient, record {stay['record']}: {read} of {routes.shape[1]} steps read the "
        "key-value memory"
    )
    drawing.legend(handles=_legend(), loc="outside lower center", ncols=3)
    return drawing


def _routes(axes: Axes, hours: np.ndarray, routes: np.ndarray) -> None:
    colours = ListedColormap([ROUTE_COLOURS[route] for route in Route])
    for layer, row in enumerate(routes):
        # Reads are drawn last: a step close by must not hide one.
        order = np.argsort(row, kind="stable")
        axes.scatter(
            hours[order],
            np.full(len(hours), layer + 1),
            c=row[order],
            cmap=colours,
            vmin=0,
            vmax=2,
            marker="|",
            s=150,
            linewidths=2.0,
        )
    axes.set(ylim=(0.4, len(routes) + 0.6), yticks=range(1, len(routes) + 1))
    axes.set_yticklabels([f"layer {layer}" for layer in range(1, len(routes) + 1)])
    axes.grid(visible=False)


def _legend() -> list[Line2D]:
    names = {
        Route.WORKING: "working memory",
        Route.SEMANTIC: "semantic memory",
        Route.EPISODIC: "episodic memory: a read",
    }
    return [
        Line2D([], [], linestyle="none", marker="s", color=ROUTE_COLOURS[route], markersize=8, label=name)
        for route, name in names.items()
    ]
