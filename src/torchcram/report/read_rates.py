"""The headline figure of a report: reads over training, with floors, phases and the sharpest fall."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchcram.report.fits import detect_transition
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
    rate_axis,
    styled,
)
from torchcram.report.training_axis import smooth, training_axis
from torchcram.report.wording import count, percent


@styled
def read_rate_figure(record: RunRecord) -> Figure | None:
    """Draw read rates (any layer, each layer) and attention share over training, with phases, floors and
    the detected transition.
    """
    steps, rate = series(record.train, "any_layer_read_rate")
    share_steps, share = series(record.train, "attention_share")
    if not len(steps):
        return None
    figure = Figure(figsize=(WIDTH, 6.2 if len(share) else 4.2))
    panels = figure.subplots(
        2 if len(share) else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2] if len(share) else None
    )[:, 0]
    _read_rates(panels[0], record, steps, rate)
    if len(share):
        _rate_over_training(
            panels[1], record, "attention_share", share_steps, share, colour=INK, name="attention share"
        )
        rate_axis(panels[1], label="attention share")
        end_labels(
            panels[1],
            [
                *_end_label(record, "attention_share", share, "share", INK),
                *_floor_label(record, "attention_share_floor"),
            ],
            gap=0.11,
        )
    training_axis(panels[-1], record)
    figure.align_ylabels(panels)
    return figure


def _read_rates(axes: Axes, record: RunRecord, steps: Points, rate: Points) -> None:
    labels = [
        *_end_label(record, "any_layer_read_rate", rate, "any layer", VERMILION),
        *_floor_label(record, "any_layer_floor"),
    ]
    peak, final = float(rate.max()), labels[0][0]
    fall = (
        f"Reads fell from {percent(peak)} to {percent(final)} of the steps"
        if final < peak
        else f"Reads did not fall: {percent(final)} of the steps"
    )
    axes.set_title(fall, pad=PHASE_ROOM)
    layers = max(len(line.get("read_rate_by_layer") or ()) for line in record.train)
    # In a single layer the two rates are the same line.
    for layer in range(layers if layers > 1 else 0):
        at, values = series(record.train, "read_rate_by_layer", layer)
        tint = str(0.4 + 0.4 * layer / layers)
        axes.plot(at, smooth(values), color=tint, linewidth=1.3, zorder=2, label=f"layer {layer + 1}")
        labels += (
            _end_label(record, "read_rate_by_layer", values, f"layer {layer + 1}", tint, layer)
            if layers <= 4
            else []
        )
    _rate_over_training(axes, record, "any_layer_read_rate", steps, rate, colour=VERMILION, name="any layer")
    rate_axis(axes, label="steps that read")
    end_labels(axes, labels)
    _mark_transition(axes, record, steps, rate)
    _mark_lengths(axes, record)


def _mark_transition(axes: Axes, record: RunRecord, steps: Points, rate: Points) -> None:
    transition = detect_transition(steps, rate)
    if transition is None:
        return
    axes.axvline(
        transition.step, color=BLUE, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1, label="sharpest fall"
    )
    words = (
        f"sharpest fall: step {count(transition.step)},\nfrom {percent(transition.before)} to "
        f"{percent(transition.after)}"
    )
    # The note stands on the side that has room.
    side, offset = ("right", -8) if transition.step > 0.6 * record.last_step else ("left", 8)
    axes.annotate(
        words,
        (transition.step, 0.3),
        (offset, 0),
        textcoords="offset points",
        color=BLUE,
        fontsize=8.5,
        ha=side,
    )


def _mark_lengths(axes: Axes, record: RunRecord) -> None:
    """Mark where a length curriculum goes on to longer sequences."""
    steps, lengths = series(record.train, "length")
    for change in np.flatnonzero(np.diff(lengths)) + 1:
        axes.axvline(steps[change], color=MUTED, linewidth=0.9, zorder=1, label="length")
        words = f" length {count(lengths[change])}"
        axes.annotate(
            words,
            (steps[change], 0.03),
            xycoords=("data", "axes fraction"),
            color=MUTED,
            fontsize=8,
            rotation=90,
            ha="left",
            va="bottom",
        )


def _rate_over_training(
    axes: Axes, record: RunRecord, field: str, steps: Points, values: Points, *, colour: str, name: str
) -> None:
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3, zorder=3)
    axes.plot(steps, smooth(values), color=colour, zorder=4, label=name)
    evaluated = series(record.evaluations, field)
    axes.plot(
        *evaluated,
        "o",
        color=PAPER,
        markeredgecolor=colour,
        markersize=4.5,
        zorder=5,
        clip_on=False,
        label=f"{name}, evaluated",
    )
    floor = record.floor(f"{field.removesuffix('_read_rate')}_floor")
    if floor is not None:
        axes.axhline(floor, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=4, label="floor")


def _end_label(
    record: RunRecord, field: str, values: Points, name: str, colour: str, *path: int
) -> list[tuple[float, str, str]]:
    """The label of a curve: its figure in the last evaluation or the summary, which explore nothing, else
    the median of its end.
    """
    evaluated = series(
        [*record.evaluations, {**(record.summary or {}), "step": record.last_step}], field, *path
    )[1]
    final = float(evaluated[-1]) if len(evaluated) else float(np.median(values[-9:]))
    return [(final, f"{name} {percent(final)}", colour)]


def _floor_label(record: RunRecord, name: str) -> list[tuple[float, str, str]]:
    floor = record.floor(name)
    return [] if floor is None else [(floor, f"floor {percent(floor)}", INK)]
