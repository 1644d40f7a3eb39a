"""The page of a series of checkpoints: does redundancy fall while a model trains?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchcram.pretrained.analysis.checkpoints import SERIES
from torchcram.pretrained.analysis.story import nats
from torchcram.report.page import embedded, render_file
from torchcram.report.style import BLUE, MUTED, VERMILION, WIDTH, percent_labels, png, styled
from torchcram.report.wording import percent
from torchcram.runs.files import load_json_list, write_text

PAGE, FIGURE = "series.html", "series.png"

Series = Mapping[str, Sequence[Mapping[str, Any]]]


def explained(record: Mapping[str, Any]) -> float:
    """Return the mean over layers of the explained variance of a checkpoint."""
    return float(np.mean(record["summary"]["explained_variance_by_layer"]))


def redundant(record: Mapping[str, Any]) -> float:
    """Return the share of operations whose centred cosine reaches 0.8."""
    return float(record["summary"]["redundant_share"]["centred_cosine"]["0.8"])


@styled
def series_figure(series: Series) -> Figure:
    """Draw redundancy and the cost of removing it against training steps: each training a thin line, their
    mean a bold one.

    Args:
        series: records of ``series.json``, by name of the training.
    """
    figure = Figure(figsize=(WIDTH, 3.9))
    loss, share, cost = figure.subplots(1, 3)
    _curve(loss, series, lambda record: record["summary"]["base_loss"], BLUE, "")
    _curve(share, series, explained, BLUE, "explained variance")
    _curve(share, series, redundant, VERMILION, "centred cosine > 0.8")
    size = list(next(iter(series.values()))[0]["summary"]["replace_best"])[-1]
    _curve(cost, series, lambda record: record["summary"]["replace_best"][size], BLUE, "replaced")
    _curve(cost, series, lambda record: record["summary"]["drop_same"][size], VERMILION, "dropped")
    loss.set(title="Loss", ylabel="nats per token")
    share.set(title="Redundancy", ylim=(-0.02, 1.02))
    percent_labels(share.yaxis)
    cost.set(
        title=f"Cost of {size} layers" if size != "1" else "Cost of one layer",
        ylabel="change of the loss, nats",
    )
    for axes in (loss, share, cost):
        axes.set_xscale("symlog", linthresh=20)
        axes.minorticks_off()
        axes.set_xlabel("training step")
    share.legend(fontsize=8.5)
    cost.legend(fontsize=8.5)
    steps = sorted({record["step"] for records in series.values() for record in records})
    for axes in (loss, share, cost):
        axes.set_xticks(_few(steps), [f"{step:,}" for step in _few(steps)], fontsize=8)
    return figure


def _few(steps: Sequence[int]) -> list[int]:
    """The first step, the last, and some between that are far enough apart to be legible."""
    chosen = [steps[-1]]
    for step in reversed(steps[:-1]):
        if step == 0 or step * 2.1 <= chosen[-1]:
            chosen.append(step)
    return sorted(chosen)


def _curve(axes: Axes, series: Series, read: Any, colour: str, label: str) -> None:
    for records in series.values():
        axes.plot(
            [record["step"] for record in records],
            [read(record) for record in records],
            color=colour,
            linewidth=0.8,
            alpha=0.45,
        )
    common = sorted(
        set.intersection(*({record["step"] for record in records} for records in series.values()))
    )
    means = [
        float(
            np.mean(
                [read(record) for records in series.values() for record in records if record["step"] == step]
            )
        )
        for step in common
    ]
    axes.plot(common, means, "o-", color=colour, markersize=4, label=label or None)
    if not label:
        axes.tick_params(colors=MUTED)


def write_series_page(folder: Path) -> Path:
    """Write ``series.html`` and ``series.png`` into the folder of a series.

    Raises:
        ValueError: if the folder holds no series.
    """
    if not (folder / SERIES).is_file():
        raise ValueError(f"{folder} holds no series of analyses: it has no {SERIES}")
    records = load_json_list(folder / SERIES)
    image = png(series_figure({"training": records}))
    (folder / FIGURE).write_bytes(image)
    rows = [_row(record) for record in records]
    page = render_file(
        "torchcram.pretrained.analysis",
        "checkpoints.html.jinja",
        title=folder.resolve().name,
        answer=answer(records),
        image=embedded(image),
        rows=rows,
    )
    path = folder / PAGE
    write_text(path, page)
    return path


def answer(records: Sequence[Mapping[str, Any]]) -> str:
    """Say in a sentence how redundancy moved from the first checkpoint to the last."""
    first, last = records[0], records[-1]
    moved = "fell" if redundant(last) < redundant(first) else "rose"
    return (
        f"From step {first['step']:,} to step {last['step']:,} the share of operations with a centred "
        f"cosine of 0.8 or more {moved} from {percent(redundant(first))} to {percent(redundant(last))}; "
        f"the explained variance went from {percent(explained(first))} to {percent(explained(last))}, the "
        f"loss from {first['summary']['base_loss']:.3f} to {last['summary']['base_loss']:.3f}."
    )


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    summary = record["summary"]
    size = list(summary["replace_best"])[-1]
    return (
        record["checkpoint"],
        f"{summary['base_loss']:.3f}",
        percent(explained(record)),
        percent(redundant(record)),
        f"{nats(summary['replace_best'][size])} ({size} layers)",
        nats(summary["drop_same"][size]),
    )
