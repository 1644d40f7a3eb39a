"""Measurements of a benchmark on the terminal: a line while they come, a table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchcram.report.wording import count, factor, percent


def bench_line(record: Mapping[str, Any]) -> str:
    """Return one measurement of a benchmark as a line of text."""
    read_rate = "" if record["read_rate"] is None else f" at {percent(record['read_rate'])}"
    ratio = (
        "not measured"
        if record["ratio"] is None
        else f"{record['ratio']:.1f}x (spread {record['spread']:.1f}) against {record['peer']}"
    )
    return f"{record['question']}, {count(record['length'])} tokens{read_rate}: {ratio}"


def print_bench(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the measurements of a benchmark as one table."""
    table = Table(box=box.SIMPLE_HEAD, title="Times faster than the peer", title_justify="left")
    for heading in ("question", "peer"):
        table.add_column(heading)
    for heading in ("tokens", "reads", "ours, ms", "peer, ms", "ratio", "limit"):
        table.add_column(heading, justify="right")
    for record in records:
        times = ["" if record[name] is None else f"{record[name]:,.2f}" for name in ("ours_ms", "peer_ms")]
        shares = [
            "" if record[name] is None else write(record[name])
            for name, write in (("read_rate", percent), ("ratio", factor), ("limit", factor))
        ]
        table.add_row(
            escape(record["question"]),
            escape(record["peer"]),
            count(record["length"]),
            shares[0],
            *times,
            *shares[1:],
        )
    console.print(table)
