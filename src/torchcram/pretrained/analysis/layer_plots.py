"""Figures of the layers of an analysed model: how predictable each one is, and what it costs alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from torchcram.pretrained.analysis.figures import GREEN, OCHRE, Details
from torchcram.report.style import BLUE, INK, MUTED, PURPLE, VERMILION, WIDTH, percent_labels, styled

CONTROL_STYLE = {
    "token": (OCHRE, "s"),
    "previous": (GREEN, "^"),
    "position": (PURPLE, "v"),
    "shuffled": (MUTED, "x"),
}
# From "not predictable" to "predictable", also legible in grey.
HEAT = LinearSegmentedColormap.from_list("heat", ["#F4F6F8", "#BBD6E8", "#4C9BC9", "#0B4A73"])


@styled
def layer_figure(details: Details) -> Figure:
    """Draw explained variance by layer: ridge, MLP, controls; below, what replacing and dropping each
    layer alone costs.
    """
    layers = details["layers"]
    figure = Figure(figsize=(WIDTH, 6.4))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _predictable(above, layers)
    _cost_alone(below, layers)
    for axes in (above, below):
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure


def _predictable(axes: Axes, layers: Sequence[Details]) -> None:
    x = [row["layer"] for row in layers]
    axes.plot(x, [row["explained_variance"] for row in layers], "o-", color=BLUE, label="ridge", zorder=3)
    if all(row["explained_variance_mlp"] is not None for row in layers):
        mlp = [row["explained_variance_mlp"] for row in layers]
        axes.plot(x, mlp, "o--", color=VERMILION, markersize=4, linewidth=1.2, label="small MLP")
    for control, (colour, marker) in CONTROL_STYLE.items():
        shares = [max(row["controls"][control], -0.1) for row in layers]
        label = f"{control} alone" if control != "shuffled" else control
        axes.plot(x, shares, marker, color=colour, markersize=4.5, label=label)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(title="How predictable is each layer?", ylim=(-0.13, 1.03), ylabel="explained variance")
    percent_labels(axes.yaxis)


def _cost_alone(axes: Axes, layers: Sequence[Details]) -> None:
    x = [row["layer"] for row in layers]
    for key, colour, word in (("replaced_alone", BLUE, "replaced"), ("dropped_alone", VERMILION, "dropped")):
        costs = _costs(layers, key)
        axes.plot(x, costs, "o-", color=colour, markersize=4, linewidth=1.2, label=word)
    axes.set(title="What does it cost alone?", yscale="log", xlabel="layer", ylabel="divergence, nats")
    axes.minorticks_off()
    _whole_numbers(axes, x)


def _costs(layers: Sequence[Details], key: str) -> list[float]:
    return [max(row[key]["divergence"], 1e-5) for row in layers]


@styled
def head_figure(details: Details) -> Figure:
    """Draw the explained variance of every head as a heat map."""
    layers = details["layers"]
    heads = max(len(row["explained_variance_by_head"]) for row in layers)
    table = np.full((heads, len(layers)), np.nan)
    for column, row in enumerate(layers):
        table[: len(row["explained_variance_by_head"]), column] = row["explained_variance_by_head"]
    figure = Figure(figsize=(WIDTH, max(2.6, 0.26 * heads + 1.4)))
    axes = figure.subplots()
    image = axes.imshow(
        np.clip(table, 0, 1), cmap=HEAT, vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    axes.grid(False)
    axes.set(title="Explained variance of each head", xlabel="layer", ylabel="head")
    _whole_numbers(axes, range(len(layers)), labels=[row["layer"] for row in layers])
    axes.set_yticks(range(0, heads, max(1, heads // 10)))
    bar = figure.colorbar(image, ax=axes, pad=0.015)
    percent_labels(bar.ax.yaxis)
    bar.outline.set_visible(False)
    return figure


@styled
def measures_figure(details: Details) -> Figure:
    """Draw the measures of others against the measured cost of replacing or dropping each layer, and the
    rank curve.
    """
    layers = details["layers"]
    figure = Figure(figsize=(WIDTH, 3.9))
    bound, influence, ranks = figure.subplots(1, 3)
    errors = [row["cca_bound"] for row in layers]
    bound.plot(errors, _costs(layers, "replaced_alone"), "o", color=BLUE, markersize=5)
    bound.set(title="NBL's bound", xlabel="error bound per channel", ylabel="divergence, replaced alone")
    cosines = [row["block_influence_cosine"] for row in layers]
    influence.plot(cosines, _costs(layers, "dropped_alone"), "o", color=VERMILION, markersize=5)
    influence.set(
        title="LLM-Drop's cosine", xlabel="cosine before and after", ylabel="divergence, dropped alone"
    )
    _ranks(ranks, layers)
    for axes in (bound, influence):
        axes.set_yscale("log")
    for axes in (bound, influence, ranks):
        axes.minorticks_off()
        axes.tick_params(labelsize=8)
    return figure


def _ranks(axes: Axes, layers: Sequence[Details]) -> None:
    for row in layers:
        curve = sorted((int(rank), value) for rank, value in row["rank_curve"].items())
        axes.plot(*zip(*curve, strict=True), color=MUTED, linewidth=0.6, alpha=0.5)
    sizes = sorted({int(rank) for row in layers for rank in row["rank_curve"]})
    means = [float(np.mean([row["rank_curve"][str(size)] for row in layers])) for size in sizes]
    axes.plot(sizes, means, color=INK, label="mean")
    axes.set(title="Rank of the probe", xlabel="rank", ylabel="explained variance")
    axes.set(xscale="log", ylim=(-0.05, 1.03))
    axes.set_xticks(_decades(sizes), [str(size) for size in _decades(sizes)])
    percent_labels(axes.yaxis)


def _decades(sizes: Sequence[int]) -> list[int]:
    return [size for size in (1, 4, 16, 64, 256, 1024, 4096) if size <= max(sizes)]


def _whole_numbers(axes: Axes, places: Sequence[int], *, labels: Sequence[int] | None = None) -> None:
    step = max(1, len(places) // 15)
    axes.set_xticks(list(places)[::step], [str(label) for label in (labels or list(places))[::step]])
