"""The end of a run: calibrate, evaluate on fresh sequences, and write the summary in the words of
:mod:`torchcram.accounting`.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from torchcram.accounting import reduction, transition_step
from torchcram.runs.clock import Clock
from torchcram.runs.run_dir import CALIBRATION, MODEL, ROUTE_MAP, SUMMARY, RunDir
from torchcram.tasks.base import Task, calibrated_head, floors_of
from torchcram.training.checkpoint import save_weights
from torchcram.training.evaluate import enough_scored, evaluate, evaluation_batch, route_map
from torchcram.training.thresholds import apply_shift, calibrate, thresholds_of
from torchcram.training.trainer import Trainer
from torchcram.training.training_progress import TrainingProgress
from torchcram.types import RoutingControl

# Queries that tell what is known without any read.
SILENT_QUERIES = 2000


def evaluate_midway(trainer: Trainer) -> dict[str, Any]:
    """Return a short evaluation of the model as it stands, and how many keys training has scanned so far."""
    wanted = trainer.config.evaluation.sequences_midway
    judged = evaluate(
        trainer.plain,
        trainer.task,
        control=trainer.evaluation_control(),
        seed=trainer.config.evaluation.seed,
        step=trainer.step,
        enough=lambda tally, seen: seen >= wanted,
        sequences=min(wanted, _batch_size(trainer)),
    )
    return judged | {"keys_computed": trainer.ledger.counts["keys_computed"]}


def finish(trainer: Trainer, run: RunDir, clock: Clock, progress: TrainingProgress) -> None:
    """Write calibration, weights, route map and, last, the summary.

    Every process evaluates everything; the main one writes.
    """
    if calibrated_head(trainer.task) and thresholds_of(trainer.plain) and trainer.learns_routes:
        _calibrate(trainer, run, progress)
    if run.writes:
        save_weights(run.path / MODEL, trainer.plain)
    progress.say("final evaluation")
    control = RoutingControl() if trainer.routes else RoutingControl(reads="all")
    final = evaluate_fully(trainer, control)
    dense = evaluate_fully(trainer, RoutingControl(reads="all")) if trainer.routes else final
    silent = (
        evaluate_fully(trainer, RoutingControl(reads="none"), most=SILENT_QUERIES)
        if trainer.routes
        else final
    )
    sample = evaluation_batch(
        trainer.task, sequences=1, seed=trainer.config.evaluation.seed, index=0, step=trainer.step
    )
    floors = floors_of(trainer.task, sample)
    run.write_json(ROUTE_MAP, route_map(trainer.plain, sample, control=control, floors=floors))
    run.write_json(SUMMARY, summarise(trainer, run, clock, final, dense, silent))


def evaluate_fully(trainer: Trainer, control: RoutingControl, *, most: int | None = None) -> dict[str, Any]:
    """Return the evaluation on at least ``evaluation.queries`` fresh queries (of any other task: scored
    targets of its first head), or on ``most`` if less.
    """
    queries = trainer.config.evaluation.queries
    return evaluate(
        trainer.plain,
        trainer.task,
        control=control,
        seed=trainer.config.evaluation.seed + 1,
        step=trainer.step,
        enough=enough_scored(queries if most is None else min(queries, most)),
        sequences=_batch_size(trainer),
    )


def _calibrate(trainer: Trainer, run: RunDir, progress: TrainingProgress) -> None:
    rules = trainer.config.evaluation
    if rules.calibration_sequences == 0:
        return
    progress.say("calibrating the familiarity threshold")
    calibration = calibrate(
        trainer.plain,
        trainer.task,
        rules.rule,
        sequences=rules.calibration_sequences,
        reference=rules.risk_reference,
        seed=rules.seed,
        step=trainer.step,
        batch_size=_batch_size(trainer),
    )
    apply_shift(trainer.plain, calibration.threshold_shift)
    run.write_json(CALIBRATION, asdict(calibration))


def summarise(
    trainer: Trainer,
    run: RunDir,
    clock: Clock,
    final: dict[str, Any],
    dense: dict[str, Any],
    silent: dict[str, Any],
) -> dict[str, Any]:
    """Return the summary of a run from its final evaluation (``final``), and from evaluations with all
    reads forced (``dense``) and with none (``silent``).
    """
    records = [record for record in run.metrics() if record["kind"] == "train"]
    rates = [record["any_layer_read_rate"] for record in records]
    fall = reduction(
        peak_rate=max(rates, default=final["any_layer_read_rate"]),
        need_rate=final["need_rate"],
        final_rate=final["any_layer_read_rate"],
        peak_share=max([record["attention_share"] for record in records], default=final["attention_share"]),
        final_share=final["attention_share"],
    )
    seconds, counts = clock.seconds(), trainer.ledger.counts
    scores, dense_scores, silent_scores = (
        answer_scores(trainer.task, record) for record in (final, dense, silent)
    )
    return {
        "retrieval_accuracy": scores.pop("all", None),
        **{f"{name}_accuracy": score for name, score in scores.items()},
        **final,
        "reduction_any_layer": fall.any_layer,
        "reduction_need": fall.need,
        "reduction_consolidation": fall.consolidation,
        "reduction_attention_share": fall.attention_share,
        "dense_retrieval_accuracy": dense_scores.get("all"),
        "silent_retrieval_accuracy": silent_scores.pop("all", None),
        **{f"silent_{name}_accuracy": score for name, score in silent_scores.items()},
        "dynamics_mse_all_reads": dense.get("dynamics_mse"),
        "training_attention_share": counts["keys_computed"] / counts["keys_dense"]
        if counts["keys_dense"]
        else 0.0,
        "reads_computed": counts["keys_computed"],
        "reads_counted": counts["keys_counted"],
        "acquired_at": trainer.acquired_at,
        "transition_step": transition_step(
            [record["step"] for record in records], rates, final=final["any_layer_read_rate"]
        )
        if trainer.routes
        else None,
        "parameters": sum(parameter.numel() for parameter in trainer.plain.parameters()),
        "steps": trainer.step,
        "seconds": seconds,
        "tokens_per_second": counts["tokens"] / seconds,
        "seed": trainer.config.seed,
        "config_hash": trainer.config.digest(),
        "run_dir": str(run.path),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def answer_scores(task: Task, record: dict[str, Any]) -> dict[str, float]:
    """Return the accuracies of an evaluation by slice, ``all`` among them: of the calibrated head, or of a
    task's only class head. A slice ``query`` is all that is asked, and left out.
    """
    head, accuracy = calibrated_head(task), record["accuracy"]
    prefix = f"{head.name}." if head is not None and f"{head.name}.all" in accuracy else ""
    scores = {name.removeprefix(prefix): score for name, score in accuracy.items() if name.startswith(prefix)}
    return {name: score for name, score in scores.items() if "." not in name and name != "query"}


def _batch_size(trainer: Trainer) -> int:
    return max(1, 8192 // trainer.config.task.length)
