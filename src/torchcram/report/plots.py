"""The other curves of a report: answers, quality and familiarity, exposures, calibration.

Each function takes the record of a run and returns a figure, or None if the run has nothing to show in it.

Titles state what happened, computed from the numbers; how to read a figure is said in its caption
(:mod:`torchcram.report.html`).
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from torchcram.report.consolidation_curve import encounters, fit_curve
from torchcram.report.records import Points, RunRecord, series
from torchcram.report.style import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    PHASE_ROOM,
    VERMILION,
    WIDTH,
    end_labels,
    percent_labels,
    rate_axis,
    share_axis,
    slice_colour,
    styled,
)
from torchcram.report.training_axis import smooth, training_axis
from torchcram.report.wording import percent


@styled
def accuracy_figure(record: RunRecord) -> Figure | None:
    """Draw the accuracy of each slice over training."""
    names = list(dict.fromkeys(name for line in record.evaluations for name in line.get("accuracy") or ()))
    # Where the scored outputs are the queries, "all" is the same line under another name.
    names = [name for name in names if name != "all" or "query" not in names]
    if not names:
        return None
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    labels = []
    for name in names:
        steps, values = series(record.evaluations, "accuracy", name)
        colour = slice_colour(name, names)
        axes.plot(
            steps,
            values,
            "o-",
            color=colour,
            markersize=4,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
            label=name,
            zorder=3,
            clip_on=False,
        )
        final = record.final(f"{'retrieval' if name == 'query' else name}_accuracy", "accuracy", name)
        labels += [] if final is None else [(final, f"{name} {percent(final)}", colour)]
    share_axis(axes, label="answered correctly")
    end_labels(axes, labels, gap=0.09)
    axes.set_title("Correct answers by kind of query", pad=PHASE_ROOM)
    training_axis(axes, record)
    return figure


@styled
def quality_figure(record: RunRecord) -> Figure | None:
    """Draw observed quality and predicted familiarity, each for recurring and novel queries, over
    training.
    """
    fields = [
        field
        for field in ("quality", "familiarity")
        if any(len(series(record.train, field, kind)[0]) for kind in ("recurring", "novel"))
    ]
    if not fields:
        return None
    figure = Figure(figsize=(WIDTH, 3.4))
    titles = {
        "quality": "Quality, observed on reads",
        "familiarity": "Familiarity, predicted without reading",
    }
    for axes, field in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields, strict=True):
        for kind in ("recurring", "novel"):
            steps, values = series(record.train, field, kind)
            axes.plot(steps, values, color=slice_colour(kind), linewidth=0.8, alpha=0.3)
            axes.plot(steps, smooth(values), color=slice_colour(kind), label=kind)
        axes.set_title(titles[field], pad=PHASE_ROOM)
        axes.set(ylim=(-0.02, 1.04), ylabel=field)
        axes.legend(loc="upper left")
        training_axis(axes, record)
    return figure


@styled
def exposure_figure(record: RunRecord) -> Figure | None:
    """Draw the share of recurring queries that read against how often their pattern had been seen, with a
    fitted power law.
    """
    if record.exposures is None or not np.sum(record.exposures["queries"]):
        return None
    edges, by_pattern, reads_by_pattern = (
        np.array(record.exposures[key]) for key in ("edges", "queries", "reads")
    )
    queries, reads = by_pattern.sum(0), reads_by_pattern.sum(0)
    centres, seen = encounters(edges), queries > 0
    share = reads[seen] / queries[seen]
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    law = fit_curve(centres, by_pattern, reads_by_pattern, generator=np.random.default_rng(0))
    if law is not None:
        at = np.geomspace(centres[seen].min(), centres[seen].max(), 100)
        label = f"power law, exponent {law.exponent:.2f} ({law.interval[0]:.2f} to {law.interval[1]:.2f})"
        label += "" if law.best == "power" else f"; likelier: {law.best}"
        axes.plot(at, law.power(at), color=MUTED, linewidth=1.4, linestyle=(0, (5, 3)), label=label)
    error = 2 * np.sqrt(share * (1 - share) / queries[seen])
    line = "o" if law is not None else "o-"
    axes.errorbar(
        centres[seen],
        share,
        yerr=error,
        fmt=line,
        color=BLUE,
        markersize=6,
        elinewidth=1.2,
        capsize=3,
        label="recurring queries that read",
    )
    axes.set_xscale("log")
    rate_axis(axes, label="recurring queries that read")
    axes.set_title(
        f"With exposure, reads go from {percent(share[0])} to {percent(share[-1])} of the recurring queries"
    )
    axes.set_xlabel("encounters of the pattern, this one included")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seen, _: f"{seen:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(loc="lower left")
    return figure


@styled
def calibration_figure(record: RunRecord) -> Figure | None:
    """Draw the calibration curve: risk and share of skipped reads against the shift of the familiarity
    thresholds.
    """
    calibration = record.calibration
    if calibration is None or not calibration.get("curve"):
        return None
    chosen, tolerance = calibration["threshold_shift"], calibration["risk_tolerance"]
    shift, risk, skipped = np.array(_where_it_matters(calibration["curve"], chosen), dtype=float).T
    figure = Figure(figsize=(WIDTH, 3.4))
    left, right = figure.subplots(1, 2)
    risk_then, skipped_then = (float(np.interp(chosen, shift, values)) for values in (risk, skipped))
    left.axhline(tolerance, color=INK, linewidth=1.1, linestyle=(0, (5, 3)))
    left.annotate(
        f"tolerance {percent(tolerance)}",
        (shift.max(), tolerance),
        (0, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
    )
    left.set_ylim(-0.06 * tolerance, max(3 * tolerance, 1.1 * risk_then))
    right.set_ylim(-0.02, 1.04)
    _against_shift(
        left,
        shift,
        risk,
        (chosen, risk_then),
        colour=VERMILION,
        title="Answers that skipping changes",
        offset=(10, 8),
    )
    _against_shift(
        right,
        shift,
        skipped,
        (chosen, skipped_then),
        colour=BLUE,
        title="Skippable reads that are skipped",
        offset=(-9, -18),
    )
    return figure


def _where_it_matters(curve: list[list[float]], chosen: float) -> list[list[float]]:
    """Return the points of a curve by rising shift, without cautious ones that change nothing, unless one of
    them was chosen.
    """
    points = sorted(curve)
    while len(points) > 2 and points[-1][1:] == points[-2][1:] and points[-1][0] != chosen:
        points.pop()
    return points


def _against_shift(
    axes: Axes,
    shift: Points,
    values: Points,
    chosen: tuple[float, float],
    *,
    colour: str,
    title: str,
    offset: tuple[int, int],
) -> None:
    axes.plot(shift, values, color=colour)
    axes.plot(*chosen, "o", color=PAPER, markeredgecolor=colour, markeredgewidth=2, markersize=7, zorder=5)
    side = "left" if offset[0] > 0 else "right"
    axes.annotate(
        f"chosen: {percent(chosen[1])}",
        chosen,
        offset,
        textcoords="offset points",
        ha=side,
        color=colour,
        fontweight="bold",
        fontsize=9,
    )
    axes.axvline(chosen[0], color=MUTED, linewidth=1.1, linestyle=(0, (1, 2)))
    axes.set(title=title, xlabel="shift of the familiarity thresholds (logits)")
    percent_labels(axes.yaxis)
