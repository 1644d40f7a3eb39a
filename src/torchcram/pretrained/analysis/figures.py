"""Figures of the analysis of a pretrained model, drawn from ``summary.json`` and ``details.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from torchcram.report.style import BLUE, INK, MUTED, PURPLE, VERMILION, WIDTH, percent_labels, styled

GREEN, OCHRE = "#009E73", "#B8860B"
DEFINITION_COLOURS = {"explained": BLUE, "cosine": OCHRE, "centred_cosine": VERMILION, "closeness": GREEN}
DEFINITION_WORDS = {
    "explained": "explained variance",
    "cosine": "cosine",
    "centred_cosine": "centred cosine",
    "closeness": "1 - relative error",
}
CONTROL_STYLE = {
    "token": (OCHRE, "s"),
    "previous": (GREEN, "^"),
    "position": (PURPLE, "v"),
    "shuffled": (MUTED, "x"),
}
POLICY_STYLE = {
    "oracle": (INK, "--", "oracle: true error"),
    "predicted_error": (OCHRE, "-", "predicted error"),
    "predicted_harm": (BLUE, "-", "predicted harm"),
    "predicted_harm_dropped": (MUTED, ":", "predicted harm, dropped"),
}
# From "not predictable" to "predictable", also legible in grey.
HEAT = LinearSegmentedColormap.from_list("heat", ["#F4F6F8", "#BBD6E8", "#4C9BC9", "#0B4A73"])

Details = Mapping[str, Any]


@styled
def causal_figure(details: Details) -> Figure:
    """Draw the headline: what skipping a share of all reads costs, by whole layers on the left, by single
    tokens on the right.
    """
    figure = Figure(figsize=(WIDTH, 4.6))
    whole, tokens = figure.subplots(1, 2, sharey=True)
    _whole_layers(whole, details)
    for policy, (colour, line, word) in POLICY_STYLE.items():
        points = sorted(
            (record["skip_rate"], record["loss_change"])
            for record in details["routed"]
            if record["policy"] == policy
        )
        if points:
            tokens.plot(*zip(*points, strict=True), line, color=colour, marker="o", markersize=4, label=word)
    tokens.set_title("Single tokens, all layers")
    for axes in (whole, tokens):
        axes.set_yscale("symlog", linthresh=0.02, linscale=0.6)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_yticks([0, 0.01, 0.02, 0.1, 1, 10], ["0", "0.01", "0.02", "0.1", "1", "10"])
        axes.set(xlabel="share of all attention reads skipped", xlim=(0, 1))
        axes.minorticks_off()
        percent_labels(axes.xaxis)
        axes.legend(fontsize=8.5, loc="upper left")
    top = max(
        [
            1.0,
            *(record["loss_change"] for record in details["routed"]),
            *(one["high"] for one in details["judged"]["variants"].values()),
        ]
    )
    whole.set(ylabel="change of the loss, nats per token", ylim=(-0.02, 8 * top))
    return figure


def _whole_layers(axes: Axes, details: Details) -> None:
    """Replaced, and dropped, with intervals over documents."""
    kinds = (
        ("replace", BLUE, "replaced, refitted"),
        ("plain", GREEN, "replaced, plain ridge"),
        ("drop_best", OCHRE, "dropped, best for it"),
        ("drop_same", VERMILION, "dropped, the same"),
    )
    for kind, colour, word in kinds:
        chosen = {
            int(name.rpartition("-")[2]): one
            for name, one in details["judged"]["variants"].items()
            if name.rpartition("-")[0] == kind
        }
        sizes = sorted(chosen)
        kept = details["replaced_looks_at"] if kind == "replace" else 0.0
        share = [size * (1 - kept) / details["model"]["layers"] for size in sizes]
        axes.fill_between(
            share,
            [chosen[size]["low"] for size in sizes],
            [chosen[size]["high"] for size in sizes],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(
            share,
            [chosen[size]["loss_change"] for size in sizes],
            color=colour,
            marker="o",
            markersize=4,
            label=word,
        )
    axes.set_title("Whole layers")


@styled
def threshold_figure(details: Details) -> Figure:
    """Draw the share of operations that count as redundant against the threshold, under every definition:
    of blocks, and of single heads.
    """
    figure = Figure(figsize=(WIDTH, 4.2))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, curves, title in (
        (left, details["redundant_share"], "Blocks"),
        (right, details["redundant_share_by_head"], "Single heads"),
    ):
        for key, curve in curves.items():
            axes.plot(
                curve["threshold"], curve["share"], color=DEFINITION_COLOURS[key], label=DEFINITION_WORDS[key]
            )
            if "low" in curve:
                axes.fill_between(
                    curve["threshold"],
                    curve["low"],
                    curve["high"],
                    color=DEFINITION_COLOURS[key],
                    alpha=0.18,
                    linewidth=0,
                )
        axes.axhline(0.88, color=MUTED, linewidth=1, linestyle=(0, (5, 3)))
        axes.set(title=title, xlabel="threshold of the score", ylim=(-0.02, 1.04), xlim=(0.1, 1))
        percent_labels(axes.yaxis)
    right.text(0.99, 0.895, "the paper's 88%", color=MUTED, fontsize=8.5, ha="right")
    left.set_ylabel("operations counted as redundant")
    left.legend(fontsize=8.5, loc="lower left")
    return figure


@styled
def layer_figure(details: Details) -> Figure:
    """Draw explained variance by layer: ridge, MLP, controls; below, what replacing and dropping each
    layer alone costs.
    """
    layers = details["layers"]
    x = [row["layer"] for row in layers]
    figure = Figure(figsize=(WIDTH, 6.4))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.plot(x, [row["explained_variance"] for row in layers], "o-", color=BLUE, label="ridge", zorder=3)
    if all(row["explained_variance_mlp"] is not None for row in layers):
        above.plot(
            x,
            [row["explained_variance_mlp"] for row in layers],
            "o--",
            color=VERMILION,
            markersize=4,
            linewidth=1.2,
            label="small MLP",
        )
    for control, (colour, marker) in CONTROL_STYLE.items():
        above.plot(
            x,
            [max(row["controls"][control], -0.1) for row in layers],
            marker,
            color=colour,
            markersize=4.5,
            label=f"{control} alone" if control != "shuffled" else control,
        )
    above.axhline(0, color=INK, linewidth=0.8)
    above.set(title="How predictable is each layer?", ylim=(-0.13, 1.03), ylabel="explained variance")
    percent_labels(above.yaxis)
    above.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    for key, colour, word in (("replaced_alone", BLUE, "replaced"), ("dropped_alone", VERMILION, "dropped")):
        below.plot(
            x,
            [max(row[key]["divergence"], 1e-5) for row in layers],
            "o-",
            color=colour,
            markersize=4,
            linewidth=1.2,
            label=word,
        )
    below.set(title="What does it cost alone?", yscale="log", xlabel="layer", ylabel="divergence, nats")
    below.minorticks_off()
    below.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    _whole_numbers(below, x)
    return figure


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
    cost = [max(row["replaced_alone"]["divergence"], 1e-5) for row in layers]
    bound.plot([row["cca_bound"] for row in layers], cost, "o", color=BLUE, markersize=5)
    bound.set(
        title="NBL's bound",
        xlabel="error bound per channel",
        ylabel="divergence, replaced alone",
        yscale="log",
    )
    influence.plot(
        [row["block_influence_cosine"] for row in layers],
        [max(row["dropped_alone"]["divergence"], 1e-5) for row in layers],
        "o",
        color=VERMILION,
        markersize=5,
    )
    influence.set(
        title="LLM-Drop's cosine",
        xlabel="cosine before and after",
        ylabel="divergence, dropped alone",
        yscale="log",
    )
    for row in layers:
        curve = sorted((int(rank), value) for rank, value in row["rank_curve"].items())
        ranks.plot(*zip(*curve, strict=True), color=MUTED, linewidth=0.6, alpha=0.5)
    sizes = sorted({int(rank) for row in layers for rank in row["rank_curve"]})
    ranks.plot(
        sizes,
        [float(np.mean([row["rank_curve"][str(size)] for row in layers])) for size in sizes],
        color=INK,
        label="mean",
    )
    ranks.set(
        title="Rank of the probe",
        xlabel="rank",
        ylabel="explained variance",
        xscale="log",
        ylim=(-0.05, 1.03),
    )
    ranks.set_xticks(_decades(sizes), [str(size) for size in _decades(sizes)])
    percent_labels(ranks.yaxis)
    for axes in (bound, influence, ranks):
        axes.minorticks_off()
        axes.tick_params(labelsize=8)
    return figure


def _decades(sizes: Sequence[int]) -> list[int]:
    return [size for size in (1, 4, 16, 64, 256, 1024, 4096) if size <= max(sizes)]


@styled
def class_figure(details: Details) -> Figure:
    """Draw, for each class of tokens, the share of operations above 0.8 under two definitions."""
    table = details["token_classes"]
    names = list(table)[::-1]
    figure = Figure(figsize=(WIDTH, 0.36 * len(names) + 1.3))
    axes = figure.subplots()
    for key, shift in (("centred_cosine", 0.18), ("explained", -0.18)):
        axes.barh(
            [place + shift for place in range(len(names))],
            [table[name][key] for name in names],
            height=0.34,
            color=DEFINITION_COLOURS[key],
            label=DEFINITION_WORDS[key],
        )
    axes.set_yticks(range(len(names)), [f"{name} ({100 * table[name]['tokens']:.1f}%)" for name in names])
    axes.set(title="Operations above 0.8, by class of token", xlim=(0, 1.02))
    axes.grid(axis="y", visible=False)
    percent_labels(axes.xaxis)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure


def _whole_numbers(axes: Axes, places: Sequence[int], *, labels: Sequence[int] | None = None) -> None:
    step = max(1, len(places) // 15)
    axes.set_xticks(list(places)[::step], [str(label) for label in (labels or list(places))[::step]])
