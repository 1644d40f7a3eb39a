"""Figures of a run that its summary does not hold: its course, the bound on static routing, what was spared
against a rival, the consolidation curve, drift.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from torchcram.report.consolidation_curve import encounters, fit_curve
from torchcram.reproduce.claim import Row
from torchcram.reproduce.lower_bound import static_accuracy
from torchcram.reproduce.saved_work import LEVEL, keys_until, saved
from torchcram.runs.run_dir import CALIBRATION, ENVIRONMENT, METRICS, SUMMARY, RunDir
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training.run_config import RunConfig

COURSE_STEPS, COURSE_VALUES = "course_steps", "course_values"
WITHIN_FLOOR = 1.25
AVERAGED_STEPS = 50
# Share of the late patterns that must have come to a bin of exposures.
LEAST_PATTERNS = 0.5
MOST_POINTS = 80


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


def certificate_figures(run: RunDir) -> dict[str, Any]:
    """Return what a run's own calibration certified: 1 or 0, and the share of the skippable reads that it
    spares. Empty for a run that was not calibrated.
    """
    chosen = run.find_json(CALIBRATION)
    if chosen is None:
        return {}
    return {"certified": int(chosen["certified"]), "certified_skipped_share": chosen["skipped_share"]}


def transfer_figures(run: RunDir, rival: Path | None) -> dict[str, Any]:
    """Return what a transferred run spared against its rival from scratch; empty without one, or with one
    of other code.
    """
    if rival is None or run.load_json(ENVIRONMENT).get("source") != RunDir(rival).load_json(ENVIRONMENT).get(
        "source"
    ):
        return {}
    ours, theirs = run.load_json(SUMMARY), RunDir(rival).load_json(SUMMARY)
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
