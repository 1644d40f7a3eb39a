"""The paper's figure on a pretrained model: reads and divergence while semantic memory is taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchcram.report.style import BLUE, INK, VERMILION, WIDTH, png, share_axis, styled

Records = Sequence[dict[str, Any]]
# Steps over which the thick lines are averaged.
SMOOTH = 8


@styled
def teaching_figure(records: Records) -> Figure:
    """Draw the records of a distillation (:class:`torchcram.pretrained.retrofit.consolidate.Consolidated`).

    Args:
        records: of kind ``train`` and ``held``.
    """
    figure = Figure(figsize=(WIDTH, 3.4))
    left, right = figure.subplots(1, 2)
    routed = [one for one in records if one["kind"] == "train" and not one["silent"]]
    held = [one for one in records if one["kind"] == "held"]
    _line(left, routed, "reads", VERMILION, "training text")
    left.plot(*_points(held, "reads"), "o", color=INK, label="held-out text, at the dearest price")
    share_axis(left, label="token x layer that reads")
    left.set(title="Reads fall", xlabel="step")
    left.legend(loc="upper right")
    right.plot(*_points(held, "none"), "o-", color=BLUE, label="nothing is read")
    right.plot(*_points(held, "routed"), "o-", color=VERMILION, label="at the dearest price")
    right.set(title="Divergence, held-out text", xlabel="step", ylabel="nats a token")
    right.set_ylim(bottom=0)
    right.legend(loc="lower left")
    return figure


def teaching_png(records: Records) -> bytes:
    """Return the figure as a PNG."""
    return png(teaching_figure(records))


def _points(records: Records, name: str) -> tuple[list[int], list[float]]:
    return [one["step"] for one in records], [one[name] for one in records]


def _line(axes: Axes, records: Records, name: str, colour: str, label: str) -> None:
    steps, values = _points(records, name)
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
    if len(values) >= SMOOTH:
        smooth = np.convolve(values, np.full(SMOOTH, 1 / SMOOTH), "valid")
        axes.plot(steps[SMOOTH - 1 :], smooth, color=colour, label=label)
