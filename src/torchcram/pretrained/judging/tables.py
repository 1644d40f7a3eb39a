"""What a judgement says, as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from torchcram.pretrained.judging.by_position import Stretch
from torchcram.pretrained.judging.frontier import Result
from torchcram.pretrained.judging.retrieval import Score
from torchcram.pretrained.judging.speed import Speed

MEBIBYTE = 2**20


def print_stretches(stretches: Sequence[Stretch], console: Console) -> None:
    """Print quality by position."""
    table = _table(
        "Against the untouched model",
        ("reads", "positions"),
        ("read", "loss", "change", "divergence", "same next token"),
    )
    for each in stretches:
        table.add_row(
            each.way,
            f"{each.start:,}-{each.end:,}",
            f"{each.reads:.1%}",
            f"{each.loss:.4f}",
            f"{each.loss_change:+.4f}",
            f"{each.divergence:.4f}",
            f"{each.agreement:.1%}",
        )
    console.print(table)


def print_scores(scores: Sequence[Score], console: Console) -> None:
    """Print the exam of retrieval, worst task first."""
    ways = list(dict.fromkeys(each.way for each in scores))
    table = _table(
        "Retrieval, worst task first",
        ("task",),
        ("untouched", *ways),
    )
    table.caption = "share of the untouched model's right answers (share of token x layer that read)"
    for task in dict.fromkeys(each.task for each in scores):
        row = {each.way: each for each in scores if each.task == task}
        first = row[ways[0]]
        shares = (f"{_share(row[way])} ({row[way].reads:.1%})" for way in ways)
        table.add_row(task, f"{first.untouched} of {first.asked}", *shares)
    console.print(table)


def _share(score: Score) -> str:
    return "-" if score.share is None else f"{score.share:.0%}"


def print_speed(speed: Speed, console: Console) -> None:
    """Print speed and memory."""
    table = _table(
        f"Decoding behind {speed.context:,} tokens, batch {speed.batch}, {speed.reads:.1%} reads",
        ("",),
        ("this model", "untouched"),
    )
    table.add_row("tokens/s", f"{speed.tokens_per_second:,.1f}", f"{speed.untouched_tokens_per_second:,.1f}")
    table.add_row(
        "cache, MiB",
        f"{speed.cache_bytes / MEBIBYTE:,.1f}",
        f"{speed.untouched_cache_bytes / MEBIBYTE:,.1f}",
    )
    table.add_row("times faster: decoding", f"{speed.ratio:.2f} (spread {speed.spread:.2f})", "1")
    table.add_row("times faster: prefill", f"{speed.prefill_ratio:.2f}", "1")
    console.print(table)


def print_results(results: Sequence[Result], console: Console) -> None:
    """Print all contenders."""
    table = _table(
        "Rivals and ablations",
        ("contender", "budget"),
        ("read", "cache", "divergence", "loss", "same next token"),
    )
    for each in results:
        table.add_row(
            each.contender,
            each.label,
            f"{each.reads:.1%}",
            f"{each.cache:.0%}",
            f"{each.divergence:.4f}",
            f"{each.loss_change:+.4f}",
            f"{each.agreement:.1%}",
        )
    console.print(table)


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for heading in words:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table
