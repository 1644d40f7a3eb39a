"""Conformal risk control of the familiarity threshold (Angelopoulos et al. 2022), evaluated end to end.

Unit: one sequence. Its loss: the share of its scored answers that differ from those of the same model with
all reads, in [0, 1]. One scalar moves the familiarity thresholds of all layers together; losses are made
monotone in it. The guarantee is for exchangeable sequences and a frozen model: it is void while training and
under drift. Skipping nothing satisfies it trivially, so the share skipped is always told, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.accounting import any_layer
from torchcram.memory.block import CRAMBlock
from torchcram.models.sequence import SequenceModel
from torchcram.types import Batch, RoutingControl

SHIFTS: tuple[float, ...] = (
    8.0,
    1.5,
    1.1,
    0.9,
    0.7,
    0.5,
    0.35,
    0.2,
    0.1,
    0.0,
    -0.1,
    -0.2,
    -0.35,
    -0.6,
    -1.0,
    -2.0,
    -8.0,
)


@dataclass(frozen=True, kw_only=True)
class RiskCurve:
    """What each shift of the threshold would do to each sequence, from the most cautious shift to the most
    skipping one.

    Attributes:
        shifts: logits added to the familiarity thresholds, falling.
        losses: share of the scored answers that change.
        skipped: share of the *skippable* reads (those of slice ``recurring``, else all) that are skipped.
    """

    shifts: tuple[float, ...]
    losses: Float[Tensor, "sequences shifts"]
    skipped: Float[Tensor, "sequences shifts"]

    def rows(self, chosen: Tensor) -> RiskCurve:
        """Return the curve of some sequences."""
        return RiskCurve(shifts=self.shifts, losses=self.losses[chosen], skipped=self.skipped[chosen])


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The chosen shift, with its risk on the calibration sequences.

    ``curve`` holds (shift, risk, skipped share).
    """

    risk_tolerance: float
    threshold_shift: float
    empirical_risk: float
    skipped_share: float
    sequences: int
    curve: tuple[tuple[float, float, float], ...]


@torch.no_grad()
def risk_curve(
    model: SequenceModel,
    batches: Sequence[Batch],
    *,
    answer: str = "answer",
    skippable: str | None = "recurring",
    shifts: Sequence[float] = SHIFTS,
    most: float | None = None,
) -> RiskCurve:
    """Measure the losses of each shift against dense reads.

    Args:
        model: frozen, in evaluation mode.
        batches: calibration sequences, never trained on.
        answer: name of a classification head per step.
        skippable: slice of the reads that could be skipped; None for all scored steps.
        shifts: what to try.
        most: leave out the shifts beyond the first one whose mean loss exceeds this: no choice can fall on
            them.
    """
    dense = [
        model(batch, control=RoutingControl(reads="all")).outputs[answer].argmax(-1) for batch in batches
    ]

    def judge(shift: float) -> tuple[Tensor, Tensor]:
        parts = [
            _judge(model, batch, answers, answer=answer, skippable=skippable, shift=shift)
            for batch, answers in zip(batches, dense, strict=True)
        ]
        return torch.cat([loss for loss, _ in parts]), torch.cat([share for _, share in parts])

    return curve_of(judge, shifts=shifts, most=most)


def curve_of(
    judge: Callable[[float], tuple[Tensor, Tensor]],
    *,
    shifts: Sequence[float] = SHIFTS,
    most: float | None = None,
) -> RiskCurve:
    """Build a risk curve from what each shift does.

    Args:
        judge: from a shift to each sequence's loss in [0, 1] and the share of its skippable reads that are
            skipped; NaN where nothing is scored.
        shifts: what to try.
        most: leave out the shifts beyond the first one whose mean loss exceeds this: no choice can fall on
            them.
    """
    ordered = tuple(sorted(shifts, reverse=True))
    losses, skipped = [], []
    for shift in ordered:
        loss, share = judge(shift)
        # A sequence without scored answers loses none.
        losses.append(loss.nan_to_num(0.0))
        skipped.append(share)
        losses[-1] = torch.maximum(losses[-1], losses[-2]) if len(losses) > 1 else losses[-1]
        if most is not None and float(losses[-1].double().mean()) > most:
            break
    return RiskCurve(
        shifts=ordered[: len(losses)], losses=torch.stack(losses, 1), skipped=torch.stack(skipped, 1)
    )


def _judge(
    model: SequenceModel, batch: Batch, dense: Tensor, *, answer: str, skippable: str | None, shift: float
) -> tuple[Tensor, Tensor]:
    """Return, for each sequence of a batch, the share of its answers that a shift changes, and the share
    of its skippable reads that it skips.
    """
    scored = (batch.targets[answer] != -100) & batch.real
    output = model(batch, control=RoutingControl(threshold_shift=shift))
    wrong = (output.outputs[answer].argmax(-1) != dense) & scored
    read = any_layer([block.decision for block in output.blocks])
    could = scored & batch.slices.get(skippable or "", scored)
    return _share(wrong, scored), _share(~read & could, could)


def check_sequences(sequences: int, *, risk_tolerance: float) -> None:
    """Raise ValueError if so few calibration sequences cannot certify the tolerance, whatever the model
    does.
    """
    needed = math.ceil(1 / risk_tolerance - 1 - 1e-9)
    if sequences < needed:
        raise ValueError(
            f"{sequences} calibration sequences cannot certify a risk of {risk_tolerance}: at "
            f"least {needed} are needed"
        )


def choose_shift(curve: RiskCurve, *, risk_tolerance: float) -> Calibration:
    """Return the most skipping shift with ``(n risk + 1) / (n + 1) <= risk_tolerance``.

    Raises:
        ValueError: if there are too few sequences for the tolerance, whatever the model does.
    """
    n = len(curve.losses)
    check_sequences(n, risk_tolerance=risk_tolerance)
    risk, skipped = curve.losses.double().mean(0), curve.skipped.double().nanmean(0)
    good = ((n * risk + 1) / (n + 1) <= risk_tolerance).nonzero()[:, 0].tolist()
    # No shift good enough: the most cautious one is nearest to dense reads, and its risk is reported as it
    # is.
    best = good[-1] if good else 0
    return Calibration(
        risk_tolerance=risk_tolerance,
        threshold_shift=curve.shifts[best],
        empirical_risk=float(risk[best]),
        skipped_share=float(skipped[best]),
        sequences=n,
        curve=tuple(
            (shift, float(r), float(s)) for shift, r, s in zip(curve.shifts, risk, skipped, strict=True)
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SplitStudy:
    """How the guarantee holds over random splits into calibration and test sequences.

    Attributes:
        risk_tolerance, calibration_sequences, test_sequences, splits: the set-up.
        mean_risk, standard_error: realised risk on the test part, over splits.
        mean_skipped: share of the skippable reads that are skipped on the test part, over splits.
    """

    risk_tolerance: float
    calibration_sequences: int
    test_sequences: int
    splits: int
    mean_risk: float
    standard_error: float
    mean_skipped: float

    @property
    def holds(self) -> bool:
        """Whether the mean realised risk is within two standard errors of the tolerance."""
        return self.mean_risk <= self.risk_tolerance + 2 * self.standard_error


def split_study(
    curve: RiskCurve,
    *,
    calibration_sequences: int,
    risk_tolerance: float,
    splits: int,
    generator: torch.Generator,
) -> SplitStudy:
    """Calibrate on random subsets of the measured sequences and test on the others.

    Raises:
        ValueError: if nothing is left to test on.
    """
    total = len(curve.losses)
    if calibration_sequences >= total:
        raise ValueError(
            f"{calibration_sequences} calibration sequences leave nothing to test on: {total} were measured"
        )
    risks, skipped = [], []
    for _ in range(splits):
        order = torch.randperm(total, generator=generator)
        chosen = choose_shift(curve.rows(order[:calibration_sequences]), risk_tolerance=risk_tolerance)
        column, rest = curve.shifts.index(chosen.threshold_shift), curve.rows(order[calibration_sequences:])
        risks.append(float(rest.losses[:, column].mean()))
        skipped.append(float(rest.skipped[:, column].nanmean()))
    risk = torch.tensor(risks, dtype=torch.float64)
    return SplitStudy(
        risk_tolerance=risk_tolerance,
        calibration_sequences=calibration_sequences,
        test_sequences=total - calibration_sequences,
        splits=splits,
        mean_risk=float(risk.mean()),
        standard_error=float(risk.std() / splits**0.5) if splits > 1 else 0.0,
        mean_skipped=float(torch.tensor(skipped).mean()),
    )


def has_threshold(model: SequenceModel) -> bool:
    """Return whether a layer predicts familiarity, so that there is a threshold to calibrate (an observed
    quality needs none).
    """
    return any(isinstance(block, CRAMBlock) and block.familiarity is not None for block in model.blocks)


def apply_shift(model: SequenceModel, shift: float) -> None:
    """Make a shift permanent: move the threshold of every router that has one."""
    for block in model.blocks:
        router = getattr(block, "router", None)
        if router is not None:
            router.threshold_logit += shift


def _share(part: Tensor, whole: Tensor) -> Float[Tensor, " sequences"]:
    return part.sum(1) / whole.sum(1)
