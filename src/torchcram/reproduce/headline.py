"""The one picture that shows the claim: reads fall to their floor while a model learns, and the answers
stay right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from torchcram.report.records import Points, RunRecord, load_record, series
from torchcram.report.style import (
    BLUE,
    INK,
    MUTED,
    PHASE_ROOM,
    VERMILION,
    WIDTH,
    end_labels,
    percent_labels,
    share_axis,
    styled,
)
from torchcram.report.training_axis import smooth, training_axis
from torchcram.report.wording import percent

# Steps and values of one run; runs may differ in length.
Curve = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]

TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
PHASE_WORDS = {
    "acquire": "every step reads\nuntil retrieval is learned",
    "consolidate": "what recurs moves\ninto parameters",
    "mature": "only what is new\nis still read",
}


@styled
def headline_figure(run_dirs: Sequence[Path]) -> Figure:
    """Draw one or several runs of one configuration: any-layer read rate above, retrieval accuracy below.

    Each run is a thin line, their mean (geometric for the rate) a bold one. Phases are those of the first
    run.

    Args:
        run_dirs: directories of the runs.

    Raises:
        ValueError: if there is no run, or one of them has no read rate or no accuracy on queries to show.
    """
    records = [load_record(directory) for directory in run_dirs]
    if not records:
        raise ValueError("a headline figure needs at least one run")
    rates = [
        _needed(record, series(record.train, "any_layer_read_rate"), "any-layer read rate")
        for record in records
    ]
    answers = [
        _needed(record, series(record.evaluations, "accuracy", "query"), "accuracy on queries")
        for record in records
    ]
    figure = Figure(figsize=(WIDTH, 5.4))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.6])
    _draw_runs(
        top,
        [(steps, np.maximum(smooth(values), TICKS[0])) for steps, values in rates],
        colour=VERMILION,
        logarithmic=True,
    )
    _draw_runs(bottom, answers, colour=BLUE, logarithmic=False)
    _rates(top, records)
    share_axis(bottom, label="queries\nanswered correctly")
    answered = _final(records, "retrieval_accuracy", "accuracy", "query")
    end_labels(bottom, [(answered, f"correct {percent(answered)}", BLUE)])
    if len(records) > 1:
        words = f"mean of {len(records)} runs (thin: each of them)"
        bottom.annotate(words, (0.99, 0.1), xycoords="axes fraction", ha="right", color=MUTED, fontsize=8.5)
    training_axis(bottom, records[0])
    _explain_phases(top, records[0])
    figure.align_ylabels([top, bottom])
    return figure


def _rates(axes: Axes, records: Sequence[RunRecord]) -> None:
    final = _final(records, "any_layer_read_rate", "any_layer_read_rate")
    floors = [floor for record in records if (floor := record.floor("any_layer_floor"))]
    # The curve is of training steps, exploration included; the figure beside it is an evaluation.
    labels = [(final, f"evaluated {percent(final)}", VERMILION)]
    axes.plot(
        records[0].last_step, final, "o", color=VERMILION, markersize=5, clip_on=False, label="evaluated"
    )
    if floors:
        floor = float(np.mean(floors))
        axes.axhline(floor, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), label="floor")
        labels.append((floor, f"floor {percent(floor)}", INK))
    axes.set_yscale("log")
    axes.set(
        ylim=(max(TICKS[0], 0.45 * min(height for height, _, _ in labels)), 1.3),
        ylabel="training steps that read\nthe key-value memory",
    )
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    percent_labels(axes.yaxis)
    end_labels(axes, labels)
    axes.set_title("It learns to retrieve, and then to do without", pad=PHASE_ROOM)


def _explain_phases(axes: Axes, record: RunRecord) -> None:
    for phase in record.phases:
        # A narrow stretch has no room for words.
        if phase.name in PHASE_WORDS and phase.stop - phase.start > 0.17 * record.last_step:
            middle = ((phase.start + phase.stop) / 2, 0.86)
            axes.annotate(
                PHASE_WORDS[phase.name],
                middle,
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
                color=MUTED,
                fontsize=9,
            )


def _draw_runs(axes: Axes, curves: Sequence[Curve], *, colour: str, logarithmic: bool) -> None:
    """Draw each curve and, on the steps that all of them cover, their mean."""
    start, stop = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.concatenate([steps[(steps >= start) & (steps <= stop)] for steps, _ in curves]))
    heights = np.array([np.interp(grid, steps, values) for steps, values in curves])
    mean = np.exp(np.log(heights).mean(0)) if logarithmic else heights.mean(0)
    for steps, values in curves if len(curves) > 1 else ():
        axes.plot(steps, values, color=colour, linewidth=0.9, alpha=0.4, label="run")
    axes.plot(grid, mean, color=colour, linewidth=2.6, label="mean")


def _final(records: Sequence[RunRecord], name: str, *path: str) -> float:
    """The mean of the runs' own final figures: of the summary, else of the last evaluation, else of the
    last record.
    """
    lines = [[*record.train, *record.evaluations] for record in records]
    given = [(record.summary or {}).get(name) for record in records]
    return float(
        np.mean(
            [
                series(line, *path)[1][-1] if value is None else value
                for line, value in zip(lines, given, strict=True)
            ]
        )
    )


def _needed(record: RunRecord, curve: tuple[Points, Points], what: str) -> tuple[Points, Points]:
    if not len(curve[0]):
        raise ValueError(f"{record.directory} has no {what} to show")
    return curve
