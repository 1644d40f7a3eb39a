"""The familiarity thresholds of a model: measured on fresh sequences, certified, and moved.

What calibration watches are the answers of the task's ``calibrated_head``. A sequence's loss is the share of
them that is wrong, against one of two references: ``"cautious"``, what the same model answers with a read for
every token in need (semantic memory is silent); or ``"labels"``, the right answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from torchcram.accounting import any_layer
from torchcram.calibration.choice import Calibration, choose_shift
from torchcram.calibration.curve import Judge, Judgement, RiskCurve, joined, risk_curve, shift_grid
from torchcram.calibration.rule import Rule
from torchcram.calibration.splits import SplitStudy, draw_splits, none_certifies, split_study
from torchcram.models.sequence import SequenceModel, scored
from torchcram.tasks.base import Task, calibrated_head, floors_of
from torchcram.training.evaluate import evaluation_batch, suited
from torchcram.types import Batch, Head, RoutingControl

Reference = Literal["cautious", "labels"]
# Where the indices of calibration sequences begin: no evaluation of the same seed draws the same ones.
APART = 2**31


def thresholds_of(model: SequenceModel) -> list[float]:
    """Return the familiarity threshold of every layer that predicts familiarity, in logits."""
    routers = [
        getattr(block, "router", None)
        for block in model.blocks
        if getattr(block, "familiarity", None) is not None
    ]
    return [float(router.threshold_logit) for router in routers if router is not None]


def apply_shift(model: SequenceModel, shift: float) -> None:
    """Make a shift permanent: move the threshold of every router that has one."""
    for block in model.blocks:
        router = getattr(block, "router", None)
        if router is not None:
            router.threshold_logit += shift


def calibrate(
    model: SequenceModel,
    task: Task,
    rule: Rule,
    *,
    sequences: int,
    seed: int,
    step: int,
    reference: Reference = "cautious",
    batch_size: int = 16,
) -> Calibration:
    """Return the most skipping shift that the rule certifies on fresh sequences.

    Raises:
        ValueError: before any work, for too few sequences; and as :func:`fresh_risk_curve`.
    """
    rule.check_units(sequences)
    curve = fresh_risk_curve(
        model,
        task,
        sequences=sequences,
        seed=seed,
        step=step,
        reference=reference,
        batch_size=batch_size,
        fails=rule.fails,
    )
    return choose_shift(curve, rule, reference=reference)


def fresh_risk_curve(
    model: SequenceModel,
    task: Task,
    *,
    sequences: int,
    seed: int,
    step: int,
    reference: Reference = "cautious",
    batch_size: int = 16,
    fails: Callable[[Float[Tensor, " units"]], bool] = lambda losses: False,
) -> RiskCurve:
    """Return the risk curve on fresh sequences, apart from those of
    :func:`torchcram.training.evaluate.evaluate`.

    Raises:
        ValueError: if the model predicts no familiarity, or the task does not say what to watch.
    """
    head, thresholds = calibrated_head(task), thresholds_of(model)
    if not thresholds:
        raise ValueError(
            "no layer of this model predicts familiarity, so there is no threshold to calibrate: "
            "mixer 'cram' has one"
        )
    if head is None:
        raise ValueError(
            f"{type(task).__name__} does not say whose answers calibration should watch: name a class "
            "head in its member calibrated_head"
        )
    model.eval()
    shifts = shift_grid(thresholds)
    parts = [
        (
            batch.size,
            sequence_judge(
                model,
                batch,
                head,
                skippable=batch.real,
                most_cautious=shifts[0],
                reference=reference,
            ),
        )
        for batch in fresh_batches(task, sequences=sequences, seed=seed, step=step, batch_size=batch_size)
    ]
    return risk_curve(joined(parts), units=sequences, shifts=shifts, fails=fails)


def study_guarantee(
    model: SequenceModel,
    task: Task,
    rules: Sequence[Rule],
    *,
    sequences: int,
    test_sequences: int,
    splits: int,
    seed: int,
    step: int,
    reference: Reference = "cautious",
    batch_size: int = 16,
) -> list[SplitStudy]:
    """Calibrate on random halves of fresh sequences and test on the others, by every rule.

    Where the model's thresholds stand does not matter: the same ones are tried as in a run's calibration.

    Args:
        model: as it came out of training.
        task: what it learned.
        rules: what is to be certified.
        sequences: to calibrate on.
        test_sequences: to test on.
        splits: how often.
        seed: of the sequences and of the splits.
        step: training step at which the task stands.
        reference: see above.
        batch_size: sequences of a pass.

    Raises:
        ValueError: before any work, for too few sequences; and as :func:`fresh_risk_curve`.
    """
    for rule in rules:
        rule.check_units(sequences)
    total, generator = sequences + test_sequences, torch.Generator().manual_seed(seed)
    orders = draw_splits(total, calibration=sequences, splits=splits, generator=generator)
    enough = [none_certifies(rule, orders, calibration=sequences) for rule in rules]
    drawn = {"sequences": total, "seed": seed, "step": step, "batch_size": batch_size}
    curve = fresh_risk_curve(
        model,
        task,
        **drawn,
        reference=reference,
        fails=lambda losses: all(none(losses) for none in enough),
    )
    floor = fresh_floor(task, fresh_batches(task, **drawn))
    return [
        split_study(curve, rule, orders, calibration=sequences, floor=floor, reference=reference)
        for rule in rules
    ]


def fresh_batches(
    task: Task, *, sequences: int, seed: int, step: int, batch_size: int = 16
) -> Sequence[Batch]:
    """Return the sequences of a calibration, in batches."""
    return [
        evaluation_batch(
            task, sequences=min(batch_size, sequences - first), seed=seed, index=APART + first, step=step
        )
        for first in range(0, sequences, batch_size)
    ]


def fresh_floor(task: Task, batches: Sequence[Batch]) -> float | None:
    """Return the least share of the steps that must read, as a mean over sequences; None without an
    oracle.
    """
    shares = [
        (floors.needs_read & batch.real).double().sum(1) / batch.real.sum(1)
        for batch in batches
        if (floors := floors_of(task, batch)) is not None
    ]
    return float(torch.cat(shares).mean()) if shares else None


def sequence_judge(
    model: SequenceModel,
    batch: Batch,
    head: Head,
    *,
    skippable: Bool[Tensor, "batch time"],
    most_cautious: float,
    reference: Reference,
) -> Judge:
    """Return what judges the sequences of a batch.

    Args:
        model: in evaluation mode.
        batch: sequences with targets of the head, on the CPU.
        head: whose answers are watched, per step or per sequence.
        skippable: steps whose reads could be spared; of a head per step, those count that are scored.
        most_cautious: the shift that answers are compared with.
        reference: or whether they are compared with the right ones.
    """
    keep, real = scored(head, batch), batch.real
    could = skippable & keep if head.per == "step" else skippable
    silent = _pass(model, batch, head, shift=most_cautious)
    right = silent.answers if reference == "cautious" else batch.targets[head.name]

    def judge(shift: float, rows: Int[Tensor, " rows"]) -> Judgement:
        done = (
            silent.rows(rows)
            if shift == most_cautious
            else _pass(model, batch.chosen(rows), head, shift=shift)
        )
        wrong = (done.answers != right[rows]) & keep[rows]
        return Judgement(
            losses=_share(wrong, keep[rows]),
            skipped=_share(~done.read & could[rows], could[rows]),
            reads=_share(done.read & real[rows], real[rows]),
            routes=tuple(routes.numpy().tobytes() for routes in done.routes),
        )

    return judge


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """What a pass of the model answered, which steps read in some layer, and its routes; on the CPU."""

    answers: Int[Tensor, "batch *time"]
    read: Bool[Tensor, "batch time"]
    routes: UInt8[Tensor, "batch layers time"]

    def rows(self, chosen: Int[Tensor, " rows"]) -> _Pass:
        return _Pass(answers=self.answers[chosen], read=self.read[chosen], routes=self.routes[chosen])


@torch.no_grad()
def _pass(model: SequenceModel, batch: Batch, head: Head, *, shift: float) -> _Pass:
    output = model(suited(batch, model), control=RoutingControl(threshold_shift=shift))
    decisions = [block.decision for block in output.blocks if block.decision is not None]
    return _Pass(
        answers=output.outputs[head.name].argmax(-1).cpu(),
        read=any_layer(decisions).cpu(),
        routes=torch.stack([decision.route for decision in decisions], 1).to(torch.uint8).cpu(),
    )


def _share(part: Tensor, whole: Tensor) -> Float[Tensor, " sequences"]:
    """Return the share of each sequence's answers, or the answer of a sequence; NaN where there is none."""
    return part.flatten(1).sum(1) / whole.flatten(1).sum(1) if part.dim() > 1 else part / whole
