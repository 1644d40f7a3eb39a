"""The panel that shows the main claim: reads fall to their floor while a model learns; others' do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from torchcram.report.style import INK, MUTED, end_labels, rate_axis
from torchcram.report.wording import percent
from torchcram.reproduce.claim import Method, Row
from torchcram.reproduce.run_figures import COURSE_STEPS, COURSE_VALUES
from torchcram.reproduce.status import Group

# Steps and values of one run; runs may differ in length.
Curve = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]


def curves_of(group: Group) -> list[Curve]:
    """Return the courses that the rows of a method hold."""
    rows = [row for row in group.rows if row.get(COURSE_STEPS)]
    return [(np.array(row[COURSE_STEPS]), np.array(row[COURSE_VALUES])) for row in rows]


def draw_curves(axes: Axes, curves: Sequence[Curve], *, colour: str, label: str, bold: bool) -> None:
    """Draw each run as a thin line, and their mean over the steps of the shortest as a wide one."""
    for steps, values in curves if len(curves) > 1 else []:
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.4)
    grid = min((steps for steps, _ in curves), key=len)
    mean = np.mean([np.interp(grid, steps, values) for steps, values in curves], 0)
    axes.plot(grid, mean, color=colour, label=label, linewidth=2.6 if bold else 1.6, zorder=3 if bold else 2)


def draw_course(
    axes: Axes, methods: Sequence[Method], groups: Mapping[str, Group], colours: Mapping[str, str]
) -> None:
    """Draw the any-layer read rate of some methods over training; the first is the one that the claim is
    about: its floor, the end of its acquisition and its evaluated rate are drawn, too.

    Args:
        axes: to draw on.
        methods: with rows that hold their course.
        groups: rows by method.
        colours: by method.
    """
    for number, method in enumerate(methods):
        draw_curves(
            axes,
            curves_of(groups[method.name]),
            colour=colours[method.name],
            label=method.title,
            bold=number == 0,
        )
    rows = groups[methods[0].name].rows
    axes.set_xlabel("training step")
    rate_axis(axes, label="training steps that read\nthe key-value memory")
    _phases(axes, rows)
    rate, floor = _mean(rows, "any_layer_read_rate"), _mean(rows, "any_layer_floor")
    labels = [(value, f"evaluated {percent(value)}", colours[methods[0].name]) for value in rate]
    labels += [(value, f"floor {percent(value)}", INK) for value in floor]
    for value in floor:
        axes.axhline(value, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
    end_labels(axes, labels)


def _phases(axes: Axes, rows: Sequence[Row]) -> None:
    """Mark where acquisition ended."""
    for step in _mean(rows, "acquired_at"):
        axes.axvline(step, color=MUTED, linewidth=0.8, linestyle=":")
        above = axes.get_xaxis_transform()
        axes.text(step, 1.005, "acquire  ", transform=above, ha="right", va="bottom", color=MUTED)
        axes.text(step, 1.005, "  consolidate", transform=above, ha="left", va="bottom", color=MUTED)


def _mean(rows: Sequence[Row], name: str) -> list[float]:
    """Return the mean of a field in a list; an empty one where no row has it."""
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    return [float(np.mean(values))] if values else []
