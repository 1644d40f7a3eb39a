"""Figures of the analysis of a pretrained model, drawn from ``summary.json`` and ``details.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchcram.report.style import BLUE, INK, MUTED, VERMILION, WIDTH, percent_labels, styled

GREEN, OCHRE = "#009E73", "#B8860B"
DEFINITION_COLOURS = {"explained": BLUE, "cosine": OCHRE, "centred_cosine": VERMILION, "closeness": GREEN}
DEFINITION_WORDS = {
    "explained": "explained variance",
    "cosine": "cosine",
    "centred_cosine": "centred cosine",
    "closeness": "1 - relative error",
}
POLICY_STYLE = {
    "oracle": (INK, "--", "oracle: true error"),
    "predicted_error": (OCHRE, "-", "predicted error"),
    "predicted_harm": (BLUE, "-", "predicted harm"),
    "predicted_harm_dropped": (MUTED, ":", "predicted harm, dropped"),
}

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
