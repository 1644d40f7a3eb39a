"""A picture of one SRCD sequence: what a model observes over real time, what it is told, what it is asked,
and where the answer stands.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchcram.report.style import BLUE, INK, MUTED, PAPER, VERMILION, slice_colour, styled
from torchcram.types import Batch

KINDS = ("recurring", "novel", "overridden", "unanswerable")
WORDS = {
    "recurring": "recurring: can be known by heart",
    "novel": "novel: must be looked up",
    "overridden": "overridden: known by heart, but wrong here",
    "unanswerable": "unanswerable: never bound",
}
BINDING_HEIGHT, QUERY_HEIGHT = 1.0, 0.0


@styled
def draw_sequence(batch: Batch, *, steps: int = 160) -> Figure:
    """Draw the first sequence of an SRCD batch.

    Args:
        batch: drawn by :class:`torchcram.tasks.srcd.SRCD`; its time is in the task's own unit.
        steps: so many steps from the start are drawn; more than about 200 get crowded.

    Raises:
        ValueError: if the batch is not one of SRCD.
    """
    missing = {"query", "binding"} - set(batch.slices) | {"pattern", "distance"} - set(batch.info)
    if missing:
        raise ValueError(
            f"only sequences of SRCD can be drawn: this batch lacks {', '.join(sorted(missing))}"
        )
    shown = min(steps, batch.gap.shape[1])
    time = batch.gap[0].double().cumsum(0)[:shown].numpy()
    figure = Figure(figsize=(11, 5.2))
    grid = figure.add_gridspec(2, 2, width_ratios=[4, 1], height_ratios=[1, 1.1])
    path = batch.inputs[0, :shown, :2].double().numpy()
    observed = figure.add_subplot(grid[0, 0])
    _observations(observed, time, path)
    _events(figure.add_subplot(grid[1, 0], sharex=observed), batch, time)
    _plane(figure.add_subplot(grid[0, 1]), path)
    _legend(figure.add_subplot(grid[1, 1]), batch, shown)
    return figure


def _observations(axes: Axes, time: Float[np.ndarray, " time"], path: Float[np.ndarray, "time 2"]) -> None:
    for column, (name, colour) in enumerate({"x": INK, "y": MUTED}.items()):
        axes.plot(time, path[:, column], "o-", color=colour, linewidth=0.9, markersize=2.6, label=name)
    axes.set(title=f"Observed: a noisy oscillator at {len(time)} irregular moments", ylabel="position")
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper right", ncols=2)


def _plane(axes: Axes, path: Float[np.ndarray, "time 2"]) -> None:
    axes.plot(path[:, 0], path[:, 1], color=MUTED, linewidth=0.7, alpha=0.6)
    axes.scatter(path[:, 0], path[:, 1], c=np.arange(len(path)), cmap="cividis", s=7, zorder=3)
    axes.set(title="In the plane", xlabel="x", ylabel="y", aspect="equal", adjustable="datalim")


def _events(axes: Axes, batch: Batch, time: Float[np.ndarray, " time"]) -> None:
    pattern, distance = (batch.info[name][0].numpy() for name in ("pattern", "distance"))
    for step in _steps(batch, "binding", len(time)):
        colour = BLUE if pattern[step] >= 0 else VERMILION
        axes.plot(
            time[step],
            BINDING_HEIGHT,
            "|",
            color=colour,
            markersize=15,
            markeredgewidth=2.8,
            gid=f"binding-{step}",
        )
    sources: dict[int, tuple[int, str]] = {}
    for step in _steps(batch, "query", len(time)):
        kind = query_kind(batch, step)
        answer, source = int(batch.targets["answer"][0, step]), step - int(distance[step])
        _query(axes, time, step, source, answer, kind)
        if kind != "unanswerable":
            sources[source] = (answer, slice_colour(kind))
    # Both ends of an arrow carry the value, a binding that is asked for twice only once.
    for source, (answer, colour) in sources.items():
        _value(axes, answer, time[source], BINDING_HEIGHT, 11, colour)
    axes.set(
        title="Told and asked: each query is answered by the latest binding of its key",
        xlabel="time",
        ylim=(-0.32, 1.32),
    )
    axes.set_yticks([QUERY_HEIGHT, BINDING_HEIGHT], ["queries", "bindings"])
    axes.spines["left"].set_visible(False)


def _steps(batch: Batch, name: str, shown: int) -> list[int]:
    return [int(step) for step in np.flatnonzero(batch.slices[name][0, :shown].numpy())]


def query_kind(batch: Batch, step: int) -> str:
    """Return which kind of query the first sequence of an SRCD batch holds at a step."""
    return next(kind for kind in KINDS if kind in batch.slices and bool(batch.slices[kind][0, step]))


def _value(axes: Axes, answer: int, moment: float, height: float, offset: int, colour: str) -> None:
    axes.annotate(
        str(answer),
        (moment, height),
        (0, offset),
        textcoords="offset points",
        ha="center",
        color=colour,
        fontsize=8.5,
    )


def _query(
    axes: Axes, time: Float[np.ndarray, " time"], step: int, source: int, answer: int, kind: str
) -> None:
    colour = slice_colour(kind)
    axes.plot(
        time[step], QUERY_HEIGHT, "v", color=colour, markersize=8, markeredgecolor=PAPER, gid=f"query-{step}"
    )
    if kind == "unanswerable":
        return
    _value(axes, answer, time[step], QUERY_HEIGHT, -16, colour)
    arrow = {
        "arrowstyle": "-|>",
        "color": colour,
        "linewidth": 1.2,
        "alpha": 0.75,
        "shrinkA": 5,
        "shrinkB": 0,
        "connectionstyle": "arc3,rad=0.06",
    }
    axes.annotate("", (time[source], BINDING_HEIGHT - 0.09), (time[step], QUERY_HEIGHT), arrowprops=arrow)


def _legend(axes: Axes, batch: Batch, shown: int) -> None:
    axes.set_axis_off()
    kinds = {query_kind(batch, step) for step in _steps(batch, "query", shown)} | {"recurring", "novel"}
    marks = [(slice_colour(kind), "v", WORDS[kind]) for kind in KINDS if kind in kinds]
    marks = [(INK, "|", "binding of a key to a value"), (INK, "v", "query for the value of a key"), *marks]
    handles = [
        axes.plot([], [], marker, color=colour, label=text, markersize=8, markeredgewidth=2)[0]
        for colour, marker, text in marks
    ]
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.3, 1.05),
        fontsize=8.5,
        handletextpad=0.3,
        labelspacing=0.7,
    )
