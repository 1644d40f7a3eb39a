"""Write the tables of README.md from results.csv alone: ``python collect.py``."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

from data import NAMES, RANKED

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: written by collect.py -->\n", "<!-- /results -->\n"
Rows = list[dict[str, str]]


def goal(row: dict[str, str]) -> float:
    """AUROC where ranks are asked for, else accuracy."""
    return float(row["auroc" if row["set"] in RANKED else "accuracy"])


def grouped(rows: Rows) -> dict[tuple[str, str], Rows]:
    groups: dict[tuple[str, str], Rows] = defaultdict(list)
    for row in rows:
        groups[row["method"], row["set"]].append(row)
    return groups


def spread(values: Iterable[float], digits: int) -> str:
    values = list(values)
    if not values:
        return ""
    around = f" +- {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{around} ({len(values)})"


def ranks(groups: dict[tuple[str, str], Rows], methods: list[str]) -> dict[str, float]:
    """Return the mean rank, over the sets, of the methods of today that have rows for every set, on the seeds
    that all of them have; 1 is best.
    """
    today = [method for method in methods if not method.endswith("_before")]
    whole = [method for method in today if all((method, name) in groups for name in NAMES)]
    placed = defaultdict(list)
    for name in NAMES:
        seeds = set.intersection(*({row["seed"] for row in groups[method, name]} for method in whole))
        scores = {
            method: mean(goal(row) for row in groups[method, name] if row["seed"] in seeds)
            for method in whole
        }
        for method in whole:
            better = sum(other > scores[method] for other in scores.values())
            equal = sum(other == scores[method] for other in scores.values())
            placed[method].append(better + (equal + 1) / 2)
    return {method: mean(places) for method, places in placed.items()}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def paired(rows: Rows, other: str) -> list[list[str]]:
    """Return CRAM's goal above another method's, by set, over the seeds that both have."""
    known = {(row["method"], row["set"], row["seed"]): goal(row) for row in rows}
    lines = []
    for name in NAMES:
        seeds = sorted({seed for method, of, seed in known if (method, of) == (other, name)})
        above = [
            known["cram", name, seed] - known[other, name, seed]
            for seed in seeds
            if ("cram", name, seed) in known
        ]
        lines.append([name, spread(above, 3)])
    return lines


def main() -> None:
    with (HERE / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    groups, methods = grouped(rows), list(dict.fromkeys(row["method"] for row in rows))
    placed = ranks(groups, methods)

    def column(value, digits: int) -> list[list[str]]:
        return [
            [method, *(spread([value(row) for row in groups[method, name] if value(row) is not None], digits)
                       for name in NAMES)]
            for method in methods
        ]  # fmt: skip

    scores = [[*line, f"{placed[line[0]]:.1f}" if line[0] in placed else ""] for line in column(goal, 3)]
    seconds = column(lambda row: float(row["fit_seconds"]), 1)
    reads = [
        line
        for line in column(lambda row: float(row["read_rate"]) if row["read_rate"] else None, 2)
        if line[0].startswith("cram")
    ]
    parts = [
        "## Test data: accuracy, or AUROC of the NAFLD and PhysioNet sets (number of seeds)\n",
        table(["method", *NAMES, "mean rank"], scores),
        "## CRAM above GRU-D, paired by seed\n",
        table(["set", "difference"], paired(rows, "grud")),
        "## CRAM above CRAM before, paired by seed\n",
        table(["set", "difference"], paired(rows, "cram_before")),
        "## Seconds of one core for a fit\n",
        table(["method", *NAMES], seconds),
        "## Share of the steps that CRAM reads\n",
        table(["method", *NAMES], reads),
    ]
    page = HERE / "README.md"
    text = page.read_text()
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(head + BEGIN + "\n".join(parts) + END + tail)


if __name__ == "__main__":
    main()
