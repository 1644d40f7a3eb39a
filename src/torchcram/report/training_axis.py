"""What all curves over training share: the axis of steps with its phases, and a calm line."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from scipy.ndimage import median_filter

from torchcram.report.records import Points, RunRecord
from torchcram.report.style import MUTED, PHASE_COLOURS
from torchcram.report.wording import count


def smooth(values: Points) -> Points:
    """Return the running median over nine records: it calms the noise of a batch and leaves a sharp fall
    sharp.
    """
    return median_filter(values, size=9, mode="nearest") if len(values) >= 9 else values


def training_axis(axes: Axes, record: RunRecord) -> None:
    """Label the x axis with training steps, and shade and name the phases in every panel that shares it."""
    axes.set(xlim=(0, max(record.last_step, 1)), xlabel="training step")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: count(step)))
    panels = [
        panel for panel in axes.figure.axes if panel is axes or panel.get_shared_x_axes().joined(panel, axes)
    ]
    for phase in record.phases:
        if phase.name not in PHASE_COLOURS:
            continue
        for panel in panels:
            panel.axvspan(phase.start, phase.stop, color=PHASE_COLOURS[phase.name], linewidth=0, zorder=0)
        if phase.stop - phase.start > 0.09 * record.last_step:
            middle = (phase.start + phase.stop) / 2
            panels[0].annotate(
                phase.name,
                (middle, 1.02),
                xycoords=("data", "axes fraction"),
                ha="center",
                color=MUTED,
                fontsize=8.5,
            )
