"""The summary of a run as rows: one list, shown by the terminal and by the HTML report alike.

A row whose figure is absent is left out; a figure without a row of its own is listed under "Other figures":
nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchcram.report.wording import count, duration, factor, percent

Summary = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """One line of the summary: its group, what was measured, the figure as text, and what to hold it
    against.
    """

    group: str
    label: str
    value: str
    note: str = ""


def summary_rows(summary: Summary) -> list[SummaryRow]:
    """Return the rows of a summary, in the order in which they are shown."""
    rows = [*_answers(summary), *_reads(summary), *_dynamics(summary), *_costs(summary), *_run(summary)]
    return [*rows, *_others(summary)]


def print_summary(summary: Summary, console: Console) -> None:
    """Print the summary as a table."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for group, rows in groupby(summary_rows(summary), key=lambda row: row.group):
        table.add_row(f"[not dim bold]{group}[/]", "", "")
        for row in rows:
            table.add_row(f"  {escape(row.label)}", escape(row.value), escape(row.note))
        table.add_row("", "", "")
    console.print(table)


def print_statistics(statistics: Mapping[str, tuple[float, float | None]], console: Console) -> None:
    """Print what was measured on drawn sequences beside what the specification says.

    Args:
        statistics: by name, the measured figure and the specified one, or None where nothing is specified.
        console: where to print.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("statistic", style="dim")
    for heading in ("measured", "specified"):
        table.add_column(heading, justify="right")
    for name, (measured, specified) in statistics.items():
        table.add_row(escape(name), f"{measured:.4g}", "" if specified is None else f"{specified:.4g}")
    console.print(table)


def _answers(summary: Summary) -> list[SummaryRow]:
    labels = {
        "retrieval": "all queries",
        "recurring": "recurring queries",
        "novel": "novel queries",
        "overridden": "overridden queries",
    }
    queries = summary.get("evaluated_queries")
    notes = {"retrieval": "" if queries is None else f"{count(queries)} fresh queries, exploration off"}
    given = {name: summary.get(f"{name}_accuracy") for name in labels}
    return [
        SummaryRow(
            group="Answered correctly", label=labels[name], value=percent(share), note=notes.get(name, "")
        )
        for name, share in given.items()
        if share is not None
    ]


def _reads(summary: Summary) -> list[SummaryRow]:
    by_layer = summary.get("read_rate_by_layer")
    rate, used = summary.get("any_layer_read_rate"), summary.get("any_layer_used_rate")
    return _rows(
        "Reads of the key-value memory",
        (
            "any-layer read rate",
            _as(percent, rate),
            _above_floor(summary, "any_layer_read_rate", "any_layer_floor"),
        ),
        (
            "steps whose output uses a read",
            None if used == rate else _as(percent, used),
            "the others read only to find their route",
        ),
        (
            "read rate by layer",
            " / ".join(percent(share) for share in by_layer) if by_layer else None,
            "first layer first",
        ),
        (
            "attention share",
            _as(percent, summary.get("attention_share")),
            _above_floor(summary, "attention_share", "attention_share_floor"),
        ),
        (
            "reduction of the any-layer rate",
            _as(factor, summary.get("reduction_any_layer")),
            _causes(summary),
        ),
        (
            "reduction of the attention share",
            _as(factor, summary.get("reduction_attention_share")),
            "peak over final",
        ),
        (
            "transition step",
            _as(count, summary.get("transition_step")),
            "from here on at most 1.5x the final rate",
        ),
    )


def _dynamics(summary: Summary) -> list[SummaryRow]:
    dense, kalman = summary.get("dynamics_mse_all_reads"), summary.get("kalman_mse")
    return _rows(
        "Next observation, mean squared error",
        ("this model", _as(_error, summary.get("dynamics_mse")), ""),
        ("the same with all reads forced", _as(_error, dense), ""),
        ("Kalman filter that knows the sequence", _as(_error, kalman), "floor: no predictor can be better"),
    )


def _costs(summary: Summary) -> list[SummaryRow]:
    computed, counted = summary.get("reads_computed"), summary.get("reads_counted")
    return _rows(
        "Honest costs",
        (
            "mixing FLOPs",
            _as(percent, summary.get("mixing_flops_share")),
            "of dense attention's: reads, slots, estimator, trace",
        ),
        ("bytes moved", _as(percent, summary.get("bytes_share")), "of dense attention's"),
        (
            "attention during training",
            _as(percent, summary.get("training_attention_share")),
            "of dense training's: everything read on the way here",
        ),
        (
            "reads computed",
            _as(count, computed),
            "" if counted is None else f"beside {count(counted)} counted",
        ),
    )


def _run(summary: Summary) -> list[SummaryRow]:
    speed = summary.get("tokens_per_second")
    return _rows(
        "The run",
        ("parameters", _as(count, summary.get("parameters")), ""),
        ("training steps", _as(count, summary.get("steps")), ""),
        (
            "time",
            _as(duration, summary.get("seconds")),
            "" if speed is None else f"{count(speed)} tokens a second",
        ),
        ("seed", _as(str, summary.get("seed")), ""),
        ("configuration", _as(str, summary.get("config_hash")), "hash of config.json"),
    )


SHOWN = {
    *(
        "retrieval_accuracy",
        "recurring_accuracy",
        "novel_accuracy",
        "overridden_accuracy",
        "evaluated_queries",
    ),
    *(
        "any_layer_read_rate",
        "any_layer_used_rate",
        "any_layer_floor",
        "read_rate_by_layer",
        "attention_share",
        "attention_share_floor",
        "transition_step",
    ),
    *("reduction_any_layer", "reduction_need", "reduction_consolidation", "reduction_attention_share"),
    *("dynamics_mse", "dynamics_mse_all_reads", "kalman_mse"),
    *("mixing_flops_share", "bytes_share", "training_attention_share", "reads_computed", "reads_counted"),
    *("parameters", "steps", "seconds", "tokens_per_second", "seed", "config_hash"),
}


def _others(summary: Summary) -> list[SummaryRow]:
    flat = {key: value for key, value in summary.items() if key not in SHOWN}
    flat |= {
        f"{key} {part}": value
        for key, group in flat.items()
        if isinstance(group, Mapping)
        for part, value in group.items()
        # What stands above under its own name is not said twice.
        if key != "accuracy" or (part not in ("all", "query") and f"{part}_accuracy" not in summary)
    }
    rest = {key: value for key, value in flat.items() if isinstance(value, str | float | int)}
    return _rows(
        "Other figures",
        *(
            (key.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value), "")
            for key, value in rest.items()
        ),
    )


def _rows(group: str, *entries: tuple[str, str | None, str]) -> list[SummaryRow]:
    return [
        SummaryRow(group=group, label=label, value=value, note=note)
        for label, value, note in entries
        if value is not None
    ]


def _as(write: Any, value: Any) -> str | None:
    return None if value is None else write(value)


def _error(value: float) -> str:
    return f"{value:.4f}"


def _above_floor(summary: Summary, name: str, floor_name: str) -> str:
    value, floor = summary.get(name), summary.get(floor_name)
    if value is None or floor is None:
        return ""
    return f"floor {percent(floor)}" + (f", {factor(value / floor)} the floor" if floor > 0 else "")


def _causes(summary: Summary) -> str:
    causes: Sequence[tuple[str, str]] = (
        ("reduction_need", "by need"),
        ("reduction_consolidation", "by consolidation"),
    )
    return ", ".join(
        f"{factor(summary[key])} {words}" for key, words in causes if summary.get(key) is not None
    )
