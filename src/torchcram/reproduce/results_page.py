"""What became of every claim: the results page of the documentation, with headline figures, and the table of
the README.

Both are made of ``status.json`` and ``results.csv`` under ``experiments/``. They repeat what stands there and
judge nothing. A claim without a status has not been measured, and they say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchcram.report.markdown import markdown_table
from torchcram.report.page import between
from torchcram.reproduce.claim import Claim
from torchcram.reproduce.claim_page import STATUS, WORDS, figure_file, spread_words
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.readme import README, Words, words_of
from torchcram.runs.files import RESTORE, load_json

OVERVIEW = "<!-- claims: written by torchcram reproduce -->", "<!-- /claims -->"


def results_page(experiments: Path) -> str:
    """Return the page as Markdown; its pictures are expected under ``figures/``, named by their path with
    dashes.

    Args:
        experiments: folder of all claims.

    Raises:
        ValueError: if a status is damaged.
    """
    records = _records(experiments)
    words = {name: words_of(CLAIMS[name], experiments) for name in records}
    rows = [(f"[{name}](#{name})", words[name].question, _word(record)) for name, record in records.items()]
    head = "Written from the files under `experiments/`: means over seeds, with the least and the greatest. "
    head += "`torchcram reproduce CLAIM --out mine/experiments` repeats a claim."
    table = markdown_table(("claim", "question", "status"), rows)
    parts = [
        _claim(CLAIMS[name], words[name], record, experiments=experiments) for name, record in records.items()
    ]
    return "\n\n".join(part for part in ("# Results", head, table, *parts) if part) + "\n"


def overview(experiments: Path) -> str:
    """Return a table in Markdown: every claim, what came out at each scale, and how many of its goals every
    seed meets.

    Raises:
        ValueError: if a status is damaged.
    """
    rows = [
        (
            f"[{name}]({CLAIMS[name].folder}/{README})",
            words_of(CLAIMS[name], experiments).question,
            _outcomes(record),
        )
        for name, record in _records(experiments).items()
    ]
    return markdown_table(("claim", "question", "outcome"), rows)


def write_overview(readme: Path, experiments: Path) -> None:
    """Put the table between its marks in a file; a file that is not there, or has no such marks, is left
    alone.

    Raises:
        ValueError: if a status is damaged.
    """
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if all(mark in text for mark in OVERVIEW):
        readme.write_text(between(text, marks=OVERVIEW, content=overview(experiments)), encoding="utf-8")


def _records(experiments: Path) -> dict[str, dict[str, Any] | None]:
    return {
        name: _status(experiments / claim.folder / STATUS) for name, claim in CLAIMS.items() if claim.goals
    }


def _outcomes(record: Mapping[str, Any] | None) -> str:
    return (
        _word(record)
        if record is None
        else "; ".join(_outcome(scale, measured) for scale, measured in record["scales"].items())
    )


def _outcome(scale: str, measured: Mapping[str, Any]) -> str:
    if measured["status"] == "stale":
        return f"{scale}: {WORDS['stale'].lower()}"
    judged = [goal for goal in measured["goals"] if goal["seeds"]]
    reached, unjudged = (
        sum(goal["seeds"] == goal["met"] for goal in judged),
        len(measured["goals"]) - len(judged),
    )
    unmeasured = f", {unjudged} not measured" if unjudged else ""
    seeds = max((goal["seeds"] for goal in judged), default=0)
    return (
        f"{scale}: {WORDS[measured['status']].lower()} ({reached} of {len(judged)} goals{unmeasured}; "
        f"seeds: {seeds})"
    )


def _status(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    record = load_json(file)
    if "scales" not in record or record.get("status") not in WORDS:
        raise ValueError(f"{file} is damaged: {RESTORE}")
    return record


def _word(record: Mapping[str, Any] | None) -> str:
    return "not measured yet" if record is None else WORDS[record["status"]].lower()


def _claim(claim: Claim, words: Words, record: Mapping[str, Any] | None, *, experiments: Path) -> str:
    # The anchor is the claim's name, which a heading would change.
    parts = [
        f"## {words.question} {{ #{claim.name} }}",
        f"**The paper**: {words.paper}",
        f"**Status**: {_word(record)}. {words.reading}",
    ]
    for scale, measured in (record["scales"] if record is not None else {}).items():
        parts.append(
            f"Scale {scale}, {measured['seeds']} seeds, {WORDS[measured['status']].lower()}"
            + _incomplete(measured)
            + ":"
        )
        if (experiments / claim.folder / figure_file(scale)).exists():
            parts.append(
                f"![{claim.picture.title}](figures/{'-'.join(Path(claim.folder).parts)}-{figure_file(scale)})"
            )
        parts.append(_table(claim, measured["figures"]))
    return "\n\n".join(parts)


def _incomplete(measured: Mapping[str, Any]) -> str:
    return f"; {measured['holes']} runs are missing" if measured["holes"] else ""


def _table(claim: Claim, figures: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for method in claim.methods:
        measured = figures.get(method.name)
        if measured is not None:
            stale = " (stale: other code)" if measured.get("stale") else ""
            cells = [_cell(measured.get(figure), figure) for figure in claim.figures]
            rows.append((f"{method.title}{stale}", *cells))
    return markdown_table(("method", *map(_words, claim.figures)), rows)


def _words(figure: str) -> str:
    return figure.replace("_", " ")


def _cell(spread: Mapping[str, float] | None, figure: str) -> str:
    return "-" if spread is None else spread_words(spread, figure)
