"""One look for every figure: colours with a fixed meaning, safe for colour-blind readers, and a matplotlib
style without global state.

Blue is what is known by heart (semantic memory, recurring queries), vermilion what must be looked up
(episodic memory, novel queries), grey what is free. Figures are plain :class:`matplotlib.figure.Figure`
objects: pyplot and its backends are never touched.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.optimize import isotonic_regression

from torchcram.report.wording import percent
from torchcram.types import Route

INK, MUTED, PAPER = "#1F2933", "#6B7785", "#FFFFFF"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#AA3377"
ROUTE_COLOURS = {Route.WORKING: "#DDE2E8", Route.SEMANTIC: BLUE, Route.EPISODIC: VERMILION}
SLICE_COLOURS = {
    "query": INK,
    "recurring": BLUE,
    "novel": VERMILION,
    "overridden": PURPLE,
    "unanswerable": "#9AA5B1",
}
# Okabe and Ito's remaining colours, for slices that a task of one's own brings.
OTHER_COLOURS = ("#009E73", "#B8860B", "#56B4E9", "#CC79A7")
PHASE_COLOURS = {"acquire": "#FBEFE6", "consolidate": "#E8F1F8", "mature": "#F2F4F6"}
WIDTH = 9.6  # inches
DOTS_PER_INCH = 160
RATE_TICKS = (0.0, 0.001, 0.01, 0.1, 1.0)
# Room for the names of the phases between a panel and its title, in points.
PHASE_ROOM = 21

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#B4BDC7",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E8EC",
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
}

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def styled(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a drawing function under the style, and leave matplotlib's settings as they were."""

    @wraps(draw)
    def inner(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        # A user's matplotlibrc must not change a report; the backend is not ours to touch, and even to ask
        # for it would load pyplot.
        defaults: dict[Any, Any] = {
            name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith("backend")
        }
        with mpl.rc_context({**defaults, **STYLE}):
            return draw(*args, **kwargs)

    return inner


@styled
def png(figure: Figure) -> bytes:
    """Return a figure as a PNG that is the same for the same data (no date, no program name)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def slice_colour(name: str, others: Sequence[str] = ()) -> str:
    """Return the colour of a slice; names without a fixed meaning get one by their place among ``others``."""
    unknown = [other for other in others if other not in SLICE_COLOURS]
    return (
        SLICE_COLOURS.get(name)
        or OTHER_COLOURS[unknown.index(name) % len(OTHER_COLOURS) if name in unknown else 0]
    )


def percent_labels(axis: Axis) -> None:
    """Label the ticks of an axis of shares as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: percent(share)))


def rate_axis(axes: Axes, *, label: str) -> None:
    """Give the y axis a logarithmic scale for shares that still shows a true zero (linear below 0.1%)."""
    axes.set_yscale("symlog", linthresh=RATE_TICKS[1], linscale=0.35)
    axes.yaxis.set_major_locator(FixedLocator(RATE_TICKS))
    percent_labels(axes.yaxis)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set(ylim=(-0.00015, 1.25), ylabel=label)


def share_axis(axes: Axes, *, label: str) -> None:
    """Give the y axis a linear scale from 0% to 100%."""
    axes.set(ylim=(-0.02, 1.04), ylabel=label)
    percent_labels(axes.yaxis)


def end_labels(axes: Axes, labels: Sequence[tuple[float, str, str]], *, gap: float = 0.075) -> None:
    """Write ``(y, text, colour)`` labels right of the axes beside the ends of their lines, pushed apart to be
    legible.

    Args:
        axes: with its final limits and scale.
        labels: y in data coordinates.
        gap: smallest distance of two labels, as a share of the height of the axes.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = sorted(
        ((float(to_axes.transform((0.0, y))[1]), text, colour) for y, text, colour in labels),
        key=lambda label: label[0],
    )
    ranks = gap * np.arange(len(wanted))
    # The least displacement that keeps order and distance is a monotone regression on the heights without
    # their distances.
    least = isotonic_regression([height for height, _, _ in wanted] - ranks).x if wanted else ranks
    heights = np.clip(least, 0.0, max(0.0, 1.0 - gap * (len(wanted) - 1))) + ranks
    for height, (_, text, colour) in zip(heights, wanted, strict=True):
        axes.text(
            1.012,
            height,
            text,
            color=colour,
            transform=axes.transAxes,
            va="center",
            fontweight="bold",
            fontsize=9,
        )
