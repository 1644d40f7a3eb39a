"""What a benchmark found, beside its JSON file: a Markdown page with the table, when and where it was
measured, and a figure of ratios and limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from torchcram.report.markdown import markdown_table
from torchcram.report.style import BLUE, INK, MUTED, VERMILION, WIDTH, png, styled
from torchcram.report.wording import count, factor, percent
from torchcram.runs.files import load_json_list

HEAD = ("question", "tokens", "reads", "ours, ms", "peer, ms", "times faster", "limit", "peer")
READING = (
    "Ours and the peer take turns after a warm-up. A time is the median over the rounds; `times faster` "
    "is the median of peer / ours over the rounds, with its interquartile range; below 1x ours is "
    "slower. The limit counts operations (1 / read rate for attention; the Amdahl share or memory "
    "traffic where a figure stands). Weights are untrained, and which tokens read is drawn by lot at the "
    "rate that is shown: a trained model's own rate has to be put in. Made by `torchcram bench --json "
    "FILE`, with `--device cuda` on a GPU."
)

Record = Mapping[str, Any]


def write_bench_page(file: Path) -> Path:
    """Write ``*.md`` and ``*.png`` beside the measurements of ``torchcram bench``; return the page.

    Raises:
        ValueError: if a file of measurements is damaged.
        OSError: if the files cannot be read or written.
    """
    records: Sequence[Record] = load_json_list(file)
    machines: Sequence[Record] = load_json_list(file.with_suffix(".machine.json"))
    picture = file.with_suffix(".png")
    picture.write_bytes(png(bench_figure(records)))
    origins = "\n".join(
        f"- {record['question']}, {record['device']}: {_origin(record)}" for record in machines
    )
    page = file.with_suffix(".md")
    devices = ", ".join(dict.fromkeys(record["device"] for record in records))
    lacking = _not_on_a_gpu(records, folder=file.parent)
    parts = [
        f"# Measured speed: {devices}",
        READING,
        f"![times faster than the peer]({picture.name})",
        markdown_table(HEAD, map(_line, records)),
        lacking,
        "Measured:",
        origins,
    ]
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


@styled
def bench_figure(records: Sequence[Record]) -> Figure:
    """Draw each ratio as a bar on a logarithmic axis, its limit as a mark, and equal speed as a line."""
    measured = [record for record in records if record["ratio"] is not None]
    figure = Figure(figsize=(WIDTH, 1.3 + 0.34 * max(1, len(measured))))
    axes = figure.subplots()
    for place, record in enumerate(measured):
        axes.barh(
            place, record["ratio"] - 1, left=1, height=0.62, color=BLUE if record["ratio"] >= 1 else VERMILION
        )
        # Behind bar and mark, so that it covers neither.
        free = max(record["ratio"], record["limit"] or 1.0, 1.0)
        axes.annotate(
            factor(record["ratio"]),
            (free, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
        if record["limit"] is not None:
            axes.plot([record["limit"]], [place], "|", color=INK, markersize=13, markeredgewidth=1.6)
    axes.axvline(1, color=MUTED, linewidth=1)
    axes.set(xscale="log", xmargin=0.12, xlabel="times faster than the peer (bar and number; mark: limit)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
    axes.set_yticks(range(len(measured)), _names(measured))
    axes.set_ylim(len(measured) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return figure


def _not_on_a_gpu(records: Sequence[Record], *, folder: Path) -> str:
    """Name the questions that some file of the folder has measured, but none on a GPU."""
    asked = [
        *records,
        *(record for file in sorted(folder.glob("*.machine.json")) for record in load_json_list(file)),
    ]
    there = {record["question"] for record in asked if not record["device"].startswith("cpu")}
    lacking = [
        f"`{question}`"
        for question in dict.fromkeys(record["question"] for record in asked)
        if question not in there
    ]
    return f"Not measured on a GPU: {', '.join(lacking)}." if lacking else ""


def _names(records: Sequence[Record]) -> list[str]:
    """Return a label for each bar; where several ask the same, with the peer, and with the device if that
    does not tell them apart either.
    """
    names = [_name(record) for record in records]
    for field in ("peer", "device"):
        names = [
            f"{name}\n{record[field]}" if names.count(name) > 1 else name
            for name, record in zip(names, records, strict=True)
        ]
    return names


def _name(record: Record) -> str:
    reads = "" if record["read_rate"] is None else f", {percent(record['read_rate'])} read"
    return f"{record['question']}, {count(record['length'])} tokens{reads}"


def _line(record: Record) -> tuple[str, ...]:
    reads, limit = (
        "" if record[name] is None else write(record[name])
        for name, write in (("read_rate", percent), ("limit", factor))
    )
    ours, peer = (
        "not measured" if record[name] is None else f"{record[name]:,.2f}" for name in ("ours_ms", "peer_ms")
    )
    ratio = (
        "not measured" if record["ratio"] is None else f"{factor(record['ratio'])} ({record['spread']:.2g})"
    )
    named = f"{record['peer']}, {record['device']}"
    return (record["question"], count(record["length"]), reads, ours, peer, ratio, limit, named)


def _origin(record: Record) -> str:
    known = {name: record.get(name) for name in ("processor", "gpu", "torch", "commit")}
    return ", ".join(
        [str(record["date"]), *(f"{name} {value}" for name, value in known.items() if value is not None)]
    )
