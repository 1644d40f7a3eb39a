"""The tables of an experiment, from the files of its jobs alone: one row a method and split, means with
spread, paired differences, goals.

What was not run has no row, and is named as not run yet.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchcram.report.markdown import markdown_table
from torchcram.series.comparison.methods import METHODS
from torchcram.series.splits import SPLITS

COLUMNS = ("method", "split", "auroc", "auprc", "brier", "accuracy", "macro_f1", "attention_share", "seconds")
SCORES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier (less is better)",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
}
OURS, NOT_RUN = "cram", "not run yet"
NEURAL_PEERS = ("grud", "transformer", "ssm", "seqboat", "mtand")


@dataclass(frozen=True, kw_only=True)
class Lead:
    """A goal that is a bound on how far CRAM's score lies above a peer's, split by split.

    Attributes:
        figure: a score, of which more is better.
        peer: name of the peer; None for the neural one with the best mean.
        spreads: how many standard deviations of the differences their mean must at least be: -1 allows CRAM
            to be worse by the paired spread.
        title: for people.
    """

    figure: str
    peer: str | None
    spreads: float
    title: str


# Results by method, then by split.
Results = dict[str, dict[int, dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A goal that is a bound on the mean over all splits.

    Attributes:
        figure: key of a result.
        number: the bound.
        above: whether it must be reached or exceeded; False if it must not be exceeded.
        title: for people.
    """

    figure: str
    number: float
    above: bool
    title: str


def load_results(runs: Path) -> Results:
    """Return the finished results in a folder of runs, in the order of the methods."""
    files = {
        (method, split): runs / f"{method}-split{split}.json" for method in METHODS for split in range(SPLITS)
    }
    results: Results = {}
    for (method, split), file in files.items():
        if file.exists():
            results.setdefault(method, {})[split] = json.loads(file.read_text())
    return results


def write_csv(results: Results, file: Path) -> None:
    """Write one row a method and split; what does not apply stays empty."""
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for splits in results.values():
            for one in splits.values():
                writer.writerow([_cell(one.get(column)) for column in COLUMNS])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def results_table(results: Results, *, figures: Sequence[str]) -> str:
    """Return a Markdown table of means and standard deviations over the splits; methods without a result
    are named as not run yet.
    """
    shown = (*figures, "attention_share", "seconds")
    rows = []
    for name, method in METHODS.items():
        splits = list(results.get(name, {}).values())
        means = [spread([one[figure] for one in splits]) for figure in shown]
        cells = means if splits else [NOT_RUN, *[""] * (len(shown) - 1)]
        rows.append((f"{method.title} (`{name}`)", *cells, str(len(splits))))
    titles = [SCORES[figure] for figure in figures]
    return markdown_table(("method", *titles, "attention share", "seconds", "splits"), rows)


def spread(values: Sequence[float | None]) -> str:
    """Return mean and standard deviation; nothing if a value does not apply."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    digits = 0 if max(known) >= 10 else 3
    mean = f"{statistics.mean(known):.{digits}f}"
    return f"{mean} +- {statistics.stdev(known):.{digits}f}" if len(known) > 1 else mean


def paired(results: Results, *, ours: str, theirs: str, figure: str) -> list[float]:
    """Return by how much a method's score exceeds another's, on each split that both were judged on."""
    splits = sorted(set(results.get(ours, {})) & set(results.get(theirs, {})))
    return [results[ours][split][figure] - results[theirs][split][figure] for split in splits]


def paired_table(results: Results, *, figures: Sequence[str]) -> str:
    """Return a Markdown table of what CRAM scores above each peer, split by split: mean and standard
    deviation of the differences.
    """
    rows = []
    for name, method in METHODS.items():
        if name != OURS:
            differences = [paired(results, ours=OURS, theirs=name, figure=figure) for figure in figures]
            cells = [signed(values) if values else NOT_RUN for values in differences]
            rows.append((method.title, *cells, str(len(differences[0]))))
    return markdown_table(("CRAM above", *(SCORES[figure] for figure in figures), "splits"), rows)


def forced_table(results: Results, *, figures: Sequence[str]) -> str:
    """Return a Markdown table of what routed methods score above themselves with all reads forced: the
    same weights, split by split.
    """
    rows = []
    for name, splits in results.items():
        both = [(one, one["all_reads"]) for one in splits.values() if one.get("all_reads")]
        if both:
            cells = [
                signed([routed[figure] - forced[figure] for routed, forced in both]) for figure in figures
            ]
            rows.append((METHODS[name].title, *cells, str(len(both))))
    head = ("routed above all reads", *(SCORES[figure] for figure in figures), "splits")
    return markdown_table(head, rows) if rows else "Not run yet."


def signed(values: Sequence[float]) -> str:
    """Return mean and standard deviation of differences, with a sign."""
    mean = f"{statistics.mean(values):+.3f}"
    return f"{mean} +- {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def goals_table(results: Results, goals: Sequence[Bound | Lead]) -> str:
    """Return a Markdown table of what must be reached, what was, and whether it holds; a goal is judged on
    all splits or not at all.
    """
    rows = [
        (goal.title, *(_of_bound(results, goal) if isinstance(goal, Bound) else _of_lead(results, goal)))
        for goal in goals
    ]
    return markdown_table(("goal", "measured", "met"), rows)


def _of_bound(results: Results, goal: Bound) -> tuple[str, str]:
    values = [one[goal.figure] for one in results.get(OURS, {}).values()]
    if len(values) < SPLITS:
        return spread(values), NOT_RUN
    excess = statistics.mean(values) - goal.number
    return spread(values), _verdict(excess >= 0 if goal.above else excess <= 0)


def _of_lead(results: Results, goal: Lead) -> tuple[str, str]:
    needed = [OURS, *(NEURAL_PEERS if goal.peer is None else [goal.peer])]
    if any(len(results.get(name, {})) < SPLITS for name in needed):
        return "", NOT_RUN
    peer = max(
        needed[1:], key=lambda name: statistics.mean(one[goal.figure] for one in results[name].values())
    )
    values = paired(results, ours=OURS, theirs=peer, figure=goal.figure)
    return f"{signed(values)} above {METHODS[peer].title}", _verdict(
        statistics.mean(values) >= goal.spreads * statistics.stdev(values)
    )


def _verdict(holds: bool) -> str:
    return "yes" if holds else "no"


def tuning_table(runs: Path) -> str:
    """Return a Markdown table of each method's best trial: its score on validation data, its parameters,
    and how many trials there were.
    """
    rows = []
    for name, method in METHODS.items():
        file = runs / "tuned" / f"{name}.json"
        trials: list[Mapping[str, Any]] = json.loads(file.read_text()) if file.exists() else []
        if trials:
            chosen = ", ".join(f"{key} {_cell(value)}" for key, value in trials[0]["parameters"].items())
            rows.append((method.title, f"{trials[0]['score']:.4f}", str(len(trials)), chosen))
        else:
            rows.append((method.title, NOT_RUN, "0", ""))
    return markdown_table(("method", "best on validation data", "trials", "parameters"), rows)
