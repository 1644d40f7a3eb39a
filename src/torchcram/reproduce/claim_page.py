"""The folder of a claim: ``results.csv``, ``status.json``, a figure a scale, and a README whose part
between the marks is written from them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from torchcram.report.markdown import markdown_table
from torchcram.report.page import between
from torchcram.report.style import png
from torchcram.reproduce.claim import Claim, Pair, Row, is_share
from torchcram.reproduce.claim_figures import claim_figure
from torchcram.reproduce.plan import PlannedRun
from torchcram.reproduce.readme import MARKS, README, readme_of
from torchcram.reproduce.records import recorded
from torchcram.reproduce.results import RESULTS, csv_text, load_rows, merged, rows_of
from torchcram.reproduce.status import LEAST_SEEDS, Group, grouped, paired, scale_record, status_record

STATUS = "status.json"
WORDS = {
    "reproduced": "Reproduced",
    "partly": "Partly",
    "not": "Not reproduced",
    "measured": "Measured",
    "stale": "Made with earlier code",
}


def write_claim(claim: Claim, planned: Sequence[PlannedRun], *, experiments: Path, source: str) -> str:
    """Write the folder of a claim from the runs of one scale; what it holds of other scales stays.

    Return the claim's status.

    Args:
        claim: which.
        planned: all of its runs at one scale, finished or not.
        experiments: folder of all claims.
        source: hash of the code; rows of other code are stale.

    Raises:
        ValueError: if a file of a run or of the folder is damaged, or a README has lost its marks.
    """
    folder, scale = experiments / claim.folder, planned[0].scale
    folder.mkdir(parents=True, exist_ok=True)
    known = [*recorded(planned, experiments=experiments).values(), *rows_of(planned)]
    rows = merged(load_rows(folder / RESULTS), known, claim=claim, source=source)
    holes = [run for run in planned if not _has_fresh_row(run, rows, source)]
    scales = {
        one: scale_record(claim, rows, scale=one, source=source)
        for one in {scale, *(row["scale"] for row in rows)}
    }
    status = status_record(claim, scales)
    drawn = claim_figure(claim, grouped(rows, scale=scale, source=source))
    pictured = {one for one in scales if (folder / figure_file(one)).exists()} | (
        {scale} if drawn is not None else set()
    )
    parts = [
        f"**Status: {WORDS[status['status']]}.**" if claim.goals else "",
        _commands(claim),
        *_scale_parts(claim, rows, status, source, pictured),
        _holes(holes),
    ]
    page = between(
        readme_of(claim, experiments), marks=MARKS, content="\n\n".join(part for part in parts if part)
    )
    (folder / RESULTS).write_text(csv_text(rows), encoding="utf-8")
    (folder / STATUS).write_text(json.dumps(status, indent=1) + "\n")
    if drawn is not None:
        (folder / figure_file(scale)).write_bytes(png(drawn))
    (folder / README).write_text(page, encoding="utf-8")
    return str(status["status"])


def figure_file(scale: str) -> str:
    """Return the name of the figure of a claim at a scale."""
    return "figure.png" if scale == "mini" else f"figure_{scale}.png"


def _has_fresh_row(run: PlannedRun, rows: Sequence[Row], source: str) -> bool:
    digest = run.job.config.digest()
    return any(
        row["config_hash"] == digest and row["source"] == source and row["method"] == run.method.name
        for row in rows
    )


def _commands(claim: Claim) -> str:
    seeds = {
        scale: "" if claim.seeds is not None else f" --seeds {count}"
        for scale, count in LEAST_SEEDS.items()
        if scale in claim.scales
    }
    commands = [
        f"    torchcram reproduce {claim.name} --scale {scale}{asked}" for scale, asked in seeds.items()
    ]
    return (
        "Written by the commands below, which train what is missing. Runs whose code has not changed are\n"
        "reused. Use `--out FOLDER` to train them again.\n\n" + "\n".join(commands)
    )


def _scale_parts(
    claim: Claim, rows: Sequence[Row], status: Mapping[str, Any], source: str, pictured: set[str]
) -> list[str]:
    parts = []
    for scale, record in status["scales"].items():
        groups = grouped(rows, scale=scale, source=source)
        parts.append(
            f"## Scale {scale}: {WORDS[record['status']].lower()}\n\n{_goal_table(record)}"
            if claim.goals
            else f"## Scale {scale}"
        )
        parts += [f"![{claim.picture.title}]({figure_file(scale)})"] if scale in pictured else []
        parts += [
            _figure_table(claim, groups, scale),
            _paired_table(claim, groups, scale),
            f"{_machines(groups)}{_lacking(record)}".strip(),
        ]
    return parts


def _goal_table(record: Mapping[str, Any]) -> str:
    return markdown_table(
        ("method", "figure", "goal", "met by"),
        [
            (
                goal["method"],
                _words(goal["figure"]),
                goal["bound"],
                f"{goal['met']} of {goal['seeds']} seeds" if goal["seeds"] else "not measured",
            )
            for goal in record["goals"]
        ],
    )


def _figure_table(claim: Claim, groups: Mapping[str, Group], scale: str) -> str:
    rows = []
    for method in claim.methods_at(scale, also=list(groups)):
        group = groups.get(method.name)
        cells = [_cell(group, figure) for figure in claim.figures]
        rows.append((method.title, _seeds(group), *cells))
    return markdown_table(("method", "seeds", *map(_words, claim.figures)), rows)


def _seeds(group: Group | None) -> str:
    if group is None:
        return "none"
    return f"{len(group.rows)} (stale: other code)" if group.stale else str(len(group.rows))


def _paired_table(claim: Claim, groups: Mapping[str, Group], scale: str) -> str:
    """Differences seed by seed; the pairs of a claim share their figures."""
    shown = {method.name for method in claim.methods_at(scale, also=list(groups))}
    rows = [
        _pair_row(claim, pair, rival, paired(pair, rival, groups))
        for pair in claim.pairs
        for rival in pair.theirs
        if rival in shown
    ]
    if not rows:
        return ""
    head = ("", "less", *map(_words, claim.pairs[0].figures), "seeds")
    said = "Differences, seed by seed: mean, least and greatest (shares in points)."
    return f"{said}\n\n{markdown_table(head, rows)}"


def _pair_row(
    claim: Claim, pair: Pair, rival: str, differences: Mapping[str, Sequence[float]]
) -> tuple[str, ...]:
    cells = [_difference(values, figure) for figure, values in differences.items()]
    seeds = len(next(iter(differences.values()), []))
    return (claim.method(pair.ours).title, claim.method(rival).title, *cells, str(seeds))


def _words(figure: str) -> str:
    return figure.replace("_", " ")


def _machines(groups: Mapping[str, Group]) -> str:
    """On what the runs were trained, the most of them first."""
    counts = Counter(row["machine"] for group in groups.values() for row in group.rows if row.get("machine"))
    parts = [f"{machine} ({count} run{'' if count == 1 else 's'})" for machine, count in counts.most_common()]
    return f"Trained on {'; '.join(parts)}." if parts else ""


def _lacking(record: Mapping[str, Any]) -> str:
    return f" Runs that are lacking: {record['holes']}." if record["holes"] else ""


def _difference(values: Sequence[float], figure: str) -> str:
    if not values:
        return "-"
    signed = [
        f"{100 * value:+.2f}" if is_share(figure) else f"{value:+.4f}"
        for value in (mean(values), min(values), max(values))
    ]
    return signed[0] if len(values) == 1 else f"{signed[0]} ({signed[1]} to {signed[2]})"


def _cell(group: Group | None, figure: str) -> str:
    measured = None if group is None else group.spread(figure)
    if group is None or measured is None:
        return "-"
    runs, all_runs = measured["runs"], len(group.rows)
    return spread_words(measured, figure, partial="" if runs == all_runs else f"{runs:g} of {all_runs} runs")


def spread_words(measured: Mapping[str, float], figure: str, *, partial: str = "") -> str:
    """Return mean, least and greatest of a figure as people read it; ``partial`` says of how many runs."""
    middle, least, greatest = (number(measured[name], figure) for name in ("mean", "least", "greatest"))
    if least == greatest and not partial:
        return middle
    return f"{middle} ({', '.join(part for part in (f'{least} to {greatest}', partial) if part)})"


def number(value: float, figure: str) -> str:
    """Return a figure as people read it: shares in percent."""
    if is_share(figure):
        return f"{100 * value:.2f}%"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def _holes(holes: Sequence[PlannedRun]) -> str:
    if not holes:
        return ""
    rows = [(run.scale, run.method.title, str(run.seed), _why(run), f"`{_repair(run)}`") for run in holes]
    return "## Holes\n\n" + markdown_table(("scale", "method", "seed", "state", "repeat it"), rows)


def _repair(run: PlannedRun) -> str:
    seeds = "" if run.claim.seeds is not None else f" --seeds {run.seed + 1}"
    refresh = " --refresh" if run.job.state == "stale" else ""
    return (
        f"torchcram reproduce {run.claim.name} --scale {run.scale}{seeds} --only {run.method.name}{refresh}"
    )


def _why(run: PlannedRun) -> str:
    words = {
        "failed": f"failed: {run.job.failure}",
        "started": "unfinished",
        "missing": "not run yet",
        "stale": "stale: made with other code",
    }
    return words[run.job.state].replace("|", "/")
