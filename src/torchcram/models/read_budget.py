"""How much a trained language model may read, set for good, for a while, or for one call of ``generate``.

A ratio or a number of tokens is a bound that is never exceeded, whatever it does to the quality; a risk tolerance is a bound on changed predictions, and
needs a calibration on the user's own tokens before. See :class:`torchcram.types.ReadBudget` and :mod:`torchcram.memory.budget`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from torchcram.accounting import any_layer
from torchcram.calibration import SHIFTS, RiskCurve, choose_shift, curve_of
from torchcram.types import BlockOutput, ReadBudget, RoutingControl

Budget = float | int | ReadBudget | None


class Predictor(Protocol):
    """From tokens, their mask and what may be read to predictions and the layers' outputs."""

    def __call__(self, tokens: Tensor, mask: Tensor | None, control: RoutingControl) -> tuple[Tensor, Sequence[BlockOutput]]:
        """Run one batch."""
        ...


def as_budget(budget: Budget) -> ReadBudget | None:
    """Return a budget in full: a float is a ratio, an integer a number of tokens.

    Raises:
        ValueError: for a truth value, or a ratio or number that is out of range.
    """
    if budget is None or isinstance(budget, ReadBudget):
        return budget
    if isinstance(budget, bool):
        raise ValueError(f"read_budget {budget} is neither a ratio (a float in [0, 1]) nor a number of tokens (an integer)")
    return ReadBudget(tokens=budget) if isinstance(budget, int) else ReadBudget(ratio=float(budget))


class Restoration:
    """What :meth:`torchcram.CRAMForCausalLM.set_read_budget` returns: as a context manager it restores the former budget, also after an error."""

    def __init__(self, restore: Callable[[], None]):
        self._restore = restore

    def __enter__(self) -> None:
        """Nothing to do: the budget holds already."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Restore the former budget."""
        self._restore()


def control_within(budget: ReadBudget | None, control: RoutingControl, curve: RiskCurve | None) -> RoutingControl:
    """Return a control that keeps a budget.

    Raises:
        ValueError: if a risk tolerance is asked for without a calibration, or with too few sequences.
    """
    if budget is None:
        return control
    if budget.risk_tolerance is None:
        return replace(control, budget=budget)
    if curve is None:
        raise ValueError(f"risk_tolerance {budget.risk_tolerance} needs a calibration: call model.calibrate_reads(batches of token ids) first")
    return replace(control, threshold_shift=choose_shift(curve, risk_tolerance=budget.risk_tolerance).threshold_shift)


@torch.no_grad()
def token_risk_curve(
    predict: Predictor, batches: Sequence[tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"] | None]], *, shifts: Sequence[float] = SHIFTS
) -> RiskCurve:
    """Measure what each shift of the thresholds does to the likeliest next tokens, against dense reads.

    Args:
        predict: the frozen model.
        batches: token ids, and which of them are real (None for all); documents never trained on.
        shifts: what to try.
    """
    dense = [predict(tokens, mask, RoutingControl(reads="all"))[0] for tokens, mask in batches]

    def judge(shift: float) -> tuple[Tensor, Tensor]:
        losses, skipped = [], []
        for (tokens, mask), answers in zip(batches, dense, strict=True):
            real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
            found, blocks = predict(tokens, mask, RoutingControl(threshold_shift=shift))
            read = any_layer([block.decision for block in blocks if block.decision is not None])
            losses.append(((found != answers) & real).sum(1) / real.sum(1))
            skipped.append((~read & real).sum(1) / real.sum(1))
        return torch.cat(losses), torch.cat(skipped)

    return curve_of(judge, shifts=shifts)
