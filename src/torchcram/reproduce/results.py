"""One row a run: its method, seed and scale, and the fields of its summary.

``results.csv`` keeps the rows of other scales and other machines.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from torchcram.report.consolidation_curve import encounters, fit_curve
from torchcram.reproduce.claim import Claim, Row
from torchcram.reproduce.lower_bound import static_accuracy
from torchcram.reproduce.plan import PlannedRun
from torchcram.reproduce.saved_work import LEVEL, keys_until, saved
from torchcram.runs.run_dir import ENVIRONMENT, METRICS, SUMMARY, RunDir
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training.presets import PRESETS
from torchcram.training.run_config import RunConfig

RESULTS = "results.csv"
LEADING = ("scale", "method", "seed", "source")
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
COURSE_STEPS, COURSE_VALUES = "course_steps", "course_values"
WITHIN_FLOOR = 1.25
AVERAGED_STEPS = 50
# Share of the late patterns that must have come to a bin of exposures.
LEAST_PATTERNS = 0.5
MOST_POINTS = 80


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
            against = transfer_figures(
                RunDir(folder), folders.get((run.claim.name, run.method.rival, run.seed))
            )
            course = (
                training_course(RunDir(folder), run.claim.picture.y)
                if run.claim.picture.kind == "training"
                else {}
            )
            rows.append(
                {
                    "scale": run.scale,
                    "method": run.method.name,
                    "seed": run.seed,
                    **row_of(folder),
                    **against,
                    **course,
                }
            )
    return rows


def _folder_of(run: PlannedRun) -> Path | None:
    return run.job.folder if run.job.finished else next(iter(run.job.stale_folders[-1:]), None)


def row_of(folder: Path) -> dict[str, Any]:
    """Return what a finished run has to say.

    Raises:
        ValueError: if one of its files is damaged.
    """
    run = RunDir(folder)
    summary, environment = run.read_json(SUMMARY), run.read_json(ENVIRONMENT)
    fields = {name: value for name, value in summary.items() if name not in LEFT_OUT}
    told = {"source": environment.get("source"), "machine": machine_of(environment)}
    return {
        **told,
        **fields,
        **bound_figures(run, summary),
        **drift_figures(run, summary),
        **curve_figures(run),
    }


def machine_of(environment: Mapping[str, Any]) -> str | None:
    """Return where a run was trained and with which PyTorch, in words; None if its folder does not say."""
    device, torch = environment.get("device"), environment.get("packages", {}).get("torch")
    return f"{device}, PyTorch {torch.partition('+')[0]}" if device and torch else None


def training_course(run: RunDir, figure: str) -> dict[str, Any]:
    """Return the course of one of its metrics over training: means of at most :data:`MOST_POINTS`
    stretches of steps, of equal length.
    """
    lines = [
        record for record in run.metrics() if record["kind"] == "train" and record.get(figure) is not None
    ]
    stretches = (
        np.array_split([(record["step"], record[figure]) for record in lines], min(len(lines), MOST_POINTS))
        if lines
        else []
    )
    means = [stretch.mean(0).tolist() for stretch in stretches]
    return {
        COURSE_STEPS: [round(step, 1) for step, _ in means],
        COURSE_VALUES: [float(f"{value:.4g}") for _, value in means],
    }


def bound_figures(run: RunDir, summary: Row) -> dict[str, Any]:
    """Return the bound on static routing at the read rate that a run came to, and how far above it the run
    answers. Empty for other tasks.
    """
    task = run.config(RunConfig).task
    if not isinstance(task, SRCDConfig):
        return {}
    share = task.events(task.length)[1] / task.length
    bound = static_accuracy(summary["any_layer_read_rate"], query_share=share, values=task.values)
    return {
        "query_share": share,
        "values": task.values,
        "static_bound": bound,
        "above_static_bound": summary["retrieval_accuracy"] - bound,
    }


def transfer_figures(run: RunDir, rival: Path | None) -> dict[str, Any]:
    """Return what a transferred run spared against its rival from scratch; empty without one, or with one
    of other code.
    """
    if rival is None or run.read_json(ENVIRONMENT).get("source") != RunDir(rival).read_json(ENVIRONMENT).get(
        "source"
    ):
        return {}
    ours, theirs = run.read_json(SUMMARY), RunDir(rival).read_json(SUMMARY)
    level = LEVEL * theirs["retrieval_accuracy"]
    keys, rival_keys = (_keys_until(one, level) for one in (run, RunDir(rival)))
    return {
        "keys_to_match": keys,
        "keys_of_rival": rival_keys,
        "keys_saved": saved(keys, rival_keys),
        "reads_saved": saved(ours["any_layer_read_rate"], theirs["any_layer_read_rate"]),
        "accuracy_above_rival": ours["retrieval_accuracy"] - theirs["retrieval_accuracy"],
    }


def _keys_until(run: RunDir, level: float) -> float | None:
    records = [record for record in run.metrics() if record["kind"] == "eval"]
    return keys_until(
        [record["accuracy"]["query"] for record in records],
        [record["keys_computed"] for record in records],
        level=level,
    )


def curve_figures(run: RunDir) -> dict[str, Any]:
    """Return how the read rate of patterns fell with their exposures, where the task introduces some late;
    empty where it does not.
    """
    task = run.config_tree()["task"]
    if not task.get("introduce_at"):
        return {}
    records = [record for record in run.metrics() if record["kind"] == "exposures"]
    if not records:
        return {}
    edges, queries, reads = (np.array(records[-1][name]) for name in ("edges", "queries", "reads"))
    # Those that are there from the start come first. A bin that few patterns came to says little of all.
    early = task["patterns"] - sum(count for _, count in task["introduce_at"])
    queries, reads = queries[early:], reads[early:]
    kept = (queries > 0).mean(0) >= LEAST_PATTERNS
    x, queries, reads = encounters(edges)[kept], queries[:, kept], reads[:, kept]
    counts = {
        "curve_encounters": x.tolist(),
        "curve_queries": queries.sum(0).tolist(),
        "curve_reads": reads.sum(0).tolist(),
    }
    fit = fit_curve(x, queries, reads, generator=np.random.default_rng(0))
    if fit is None:
        return counts
    names = {"exponent": fit.exponent, "exponent_low": fit.interval[0], "exponent_high": fit.interval[1]}
    rivals = {
        f"aic_{law}_less_power": value - fit.aic["power"] for law, value in fit.aic.items() if law != "power"
    }
    return {**counts, **names, **rivals, "curve_best": fit.best}


def drift_figures(run: RunDir, summary: Row) -> dict[str, Any]:
    """Return how a run took the drift of its task: read rates before and at most after it, and the steps
    until it was back near the floor.

    Rates are averages over :data:`AVERAGED_STEPS` steps. Steps are counted from the drift to the first
    average within :data:`WITHIN_FLOOR` floors that comes after the largest one; None where none does, and
    where none was above that. Empty without a drift.
    """
    drift = run.config_tree()["task"].get("drift_at")
    if drift is None or not (run.path / METRICS).exists():
        return {}
    lines = [record for record in run.metrics() if record["kind"] == "train"]
    steps, rates = [line["step"] for line in lines], [line["any_layer_read_rate"] for line in lines]
    smooth = [
        mean(rate for at, rate in zip(steps, rates, strict=True) if step - AVERAGED_STEPS < at <= step)
        for step in steps
    ]
    before = [rate for step, rate in zip(steps, smooth, strict=True) if step < drift]
    after = [(step, rate) for step, rate in zip(steps, smooth, strict=True) if step >= drift]
    near = WITHIN_FLOOR * summary.get("any_layer_floor", 0.0)
    peak = max((rate for _, rate in after), default=None)
    risen = [rate for _, rate in after].index(peak) if peak is not None and peak > near else len(after)
    return {
        "drift_at": drift,
        "drift_base_rate": before[-1] if before else None,
        "drift_peak_rate": peak,
        "recovery_steps": next((step - drift for step, rate in after[risen:] if rate <= near), None),
    }


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
