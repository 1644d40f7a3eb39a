"""One row a run: its method, seed and scale, and the fields of its summary.

``results.csv`` keeps the rows of other scales and other machines.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchcram.reproduce.claim import Claim, Row
from torchcram.reproduce.plan import PlannedRun
from torchcram.reproduce.run_figures import (
    bound_figures,
    certificate_figures,
    curve_figures,
    drift_figures,
    training_course,
    transfer_figures,
)
from torchcram.runs.run_dir import ENVIRONMENT, SUMMARY, RunDir
from torchcram.training.presets import PRESETS

RESULTS = "results.csv"
LEADING = ("scale", "method", "seed", "source", "commit")
# Where a run lies says nothing elsewhere; routes by slice are a table of their own, in the run's report.
LEFT_OUT = ("run_dir", "routes_by_slice")
# Columns that are words, whatever they look like.
TEXTS = (
    "scale",
    "method",
    "source",
    "machine",
    "commit",
    "config_hash",
    "finished",
    "curve_best",
    "run",
    "study",
)


def rows_of(planned: Sequence[PlannedRun]) -> list[dict[str, Any]]:
    """Return the rows of the finished runs, stale ones (by their newest) where there is none of this code."""
    folders = {
        (run.claim.name, run.method.name, run.seed): folder
        for run in planned
        if (folder := _folder_of(run)) is not None
    }
    rows = []
    for run in planned:
        folder = folders.get((run.claim.name, run.method.name, run.seed))
        if folder is not None:
            rival = folders.get((run.claim.name, run.method.rival, run.seed))
            own = {"scale": run.scale, "method": run.method.name, "seed": run.seed}
            shown = run.claim.picture.over_training(run.method.name)
            course = training_course(RunDir(folder), shown) if shown else {}
            rows.append({**own, **row_of(folder), **transfer_figures(RunDir(folder), rival), **course})
    return rows


def _folder_of(run: PlannedRun) -> Path | None:
    return run.job.folder if run.job.finished else next(iter(run.job.stale_folders[-1:]), None)


def row_of(folder: Path) -> dict[str, Any]:
    """Return what a finished run has to say.

    Raises:
        ValueError: if one of its files is damaged.
    """
    run = RunDir(folder)
    summary, environment = run.load_json(SUMMARY), run.load_json(ENVIRONMENT)
    fields = {name: value for name, value in summary.items() if name not in LEFT_OUT}
    told = {name: environment.get(name) for name in ("source", "commit")}
    told["machine"] = machine_of(environment)
    return {
        **told,
        **fields,
        **certificate_figures(run),
        **bound_figures(run, summary),
        **drift_figures(run, summary),
        **curve_figures(run),
    }


def machine_of(environment: Mapping[str, Any]) -> str | None:
    """Return where a run was trained and with which PyTorch, in words; None if its folder does not say."""
    device, torch = environment.get("device"), environment.get("packages", {}).get("torch")
    return f"{device}, PyTorch {torch.partition('+')[0]}" if device and torch else None


def load_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``results.csv``; none if there is no such file.

    Raises:
        ValueError: if a row does not fit the header, as after a merge that went wrong.
    """
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{file} is damaged: restore it, or delete it")
    return [{name: _parsed(name, text) for name, text in row.items()} for row in rows]


def merged(old: Sequence[Row], new: Sequence[Row], *, claim: Claim, source: str) -> list[Row]:
    """Return ``old`` rows with ``new`` ones in their places, sorted by scale, method and seed; rows of what
    the claim no longer trains are dropped.

    A row of this code (``source``) gives way to none of other code.
    """
    methods = [method.name for method in claim.methods]
    rows = sorted(
        (*(row for row in old if _belongs(row, claim)), *new), key=lambda row: row["source"] == source
    )
    both = {(row["scale"], row["method"], row["seed"]): row for row in rows}
    return [both[key] for key in sorted(both, key=lambda key: (key[0], methods.index(key[1]), key[2]))]


def _belongs(row: Row, claim: Claim) -> bool:
    known = row["scale"] in PRESETS and any(method.name == row["method"] for method in claim.methods)
    return (
        known
        and claim.method(row["method"]).config(PRESETS[row["scale"]](), seed=row["seed"]).digest()
        == row["config_hash"]
    )


def csv_text(rows: Sequence[Row], *, leading: Sequence[str] = LEADING) -> str:
    """Return rows as CSV: the ``leading`` columns, then the others in the order of first appearance; lists
    are JSON.
    """
    columns = list(dict.fromkeys([*leading, *(name for row in rows for name in row)]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_text(row.get(name)) for name in columns] for row in rows])
    return buffer.getvalue()


def _text(value: Any) -> str:
    return (
        ""
        if value is None
        else json.dumps(value)
        if isinstance(value, list | dict)
        else repr(value)
        if isinstance(value, float)
        else str(value)
    )


def _parsed(name: str, text: str) -> Any:
    if text == "":
        return None
    if name in TEXTS:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
