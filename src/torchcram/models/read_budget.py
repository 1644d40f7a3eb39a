"""How much a trained language model may read, set for good, for a while, or for one call of ``generate``.

A ratio or a number of tokens is a bound that is never exceeded, whatever it does to the quality; a risk
tolerance is a bound on changed predictions, and needs a calibration on the user's own tokens before. See
:class:`torchcram.types.ReadBudget` and :mod:`torchcram.memory.budget`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from numbers import Integral, Real
from types import TracebackType
from typing import Any, SupportsFloat

import torch
from torch import Tensor

from torchcram.calibration.choice import choose_shift
from torchcram.calibration.curve import RiskCurve, joined, risk_curve, shift_grid
from torchcram.calibration.rule import Rule
from torchcram.memory.block import CRAMBlock
from torchcram.memory.residual import ResidualBlock
from torchcram.models.documents import Documents, Predictions, document_judge, load_documents
from torchcram.types import ReadBudget, RoutingControl

# A number may be NumPy's.
Budget = SupportsFloat | ReadBudget | None


def as_budget(budget: Budget) -> ReadBudget | None:
    """Return a budget in full: a float is a ratio, an integer a number of tokens.

    Raises:
        ValueError: for a truth value, or a ratio or number that is out of range.
    """
    if budget is None or isinstance(budget, ReadBudget):
        return budget
    # NumPy's integers are Integral, its floats Real, its truth values neither. Checkers of types know less.
    number: Any = budget
    if isinstance(number, bool) or not isinstance(number, Real) or not isfinite(number):
        raise ValueError(
            f"read_budget {budget!r} is neither a ratio (a float in [0, 1]) nor a number of tokens "
            "(an integer)"
        )
    return ReadBudget(tokens=int(number)) if isinstance(number, Integral) else ReadBudget(ratio=float(number))


class Restoration:
    """What :meth:`torchcram.CRAMForCausalLM.set_read_budget` returns: as a context manager it restores the
    former budget, also after an error.
    """

    def __init__(self, restore: Callable[[], None]):
        self._restore = restore

    def __enter__(self) -> None:
        """Nothing to do: the budget holds already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the former budget."""
        self._restore()


def control_within(
    budget: ReadBudget | None, control: RoutingControl, curve: RiskCurve | None
) -> RoutingControl:
    """Return a control that keeps a budget.

    Raises:
        ValueError: if a risk tolerance is asked for without a calibration, or with too few sequences.
    """
    if budget is None:
        return control
    if budget.risk_tolerance is None:
        return replace(control, budget=budget)
    if curve is None:
        raise ValueError(
            f"risk_tolerance {budget.risk_tolerance} needs a calibration: call "
            "model.calibrate_reads(batches of token ids) first"
        )
    # The most cautious shift changes nothing, so that something is always certified.
    chosen = choose_shift(curve, Rule(risk_tolerance=budget.risk_tolerance))
    return replace(control, threshold_shift=chosen.threshold_shift)


def check_budget(mixers: Sequence[ResidualBlock]) -> None:
    """Check that every layer can keep a budget.

    Raises:
        ValueError: for layers without our router, or whose router needs the read that it would save.
    """
    for mixer in mixers:
        if not isinstance(mixer, CRAMBlock):
            raise ValueError(
                f"{type(mixer).__name__} has no router that could keep a read budget: use mixer='cram'"
            )
        if mixer.recall.consolidates and mixer.familiarity is None:
            raise ValueError(
                "quality 'observed' needs the reads that a budget would save: use quality='predicted'"
            )


class BudgetedReads:
    """What a language model has to do with budgets; its base, the model below the head, is ``self.model``.

    Attributes:
        read_budget: the budget in force, or None.
        risk_curve: the last calibration, or None.
    """

    model: Any
    lm_head: torch.nn.Linear
    read_budget: ReadBudget | None = None
    risk_curve: RiskCurve | None = None

    def set_read_budget(self, budget: Budget) -> Restoration:
        """Bound what the model reads from now on; used as a context manager, until its end.

        Args:
            budget: a float in [0, 1] (share of each sequence's tokens that may read, in every layer), an
                integer (number of such tokens), a :class:`torchcram.ReadBudget`, or None for no bound.

        Raises:
            ValueError: for a budget that cannot be, a model without a router of ours, a risk tolerance
                without :meth:`calibrate_reads`.
        """
        wanted, former = as_budget(budget), self.read_budget
        if wanted is not None:
            check_budget(self.model.mixers)
            control_within(wanted, RoutingControl(), self.risk_curve)
        self.read_budget = wanted
        return Restoration(lambda: setattr(self, "read_budget", former))

    def _within(self, budget: Budget, control: RoutingControl) -> RoutingControl:
        """Return a control that keeps the budget of one call; without one, the model's own."""
        if budget is None:
            return control_within(self.read_budget, control, self.risk_curve)
        check_budget(self.model.mixers)
        return control_within(as_budget(budget), control, self.risk_curve)

    @torch.no_grad()
    def calibrate_reads(
        self, batches: Sequence[Tensor | Mapping[str, Tensor]], *, largest_tolerance: float = 0.2
    ) -> RiskCurve:
        """Measure what fewer reads change, so that a budget can be a risk tolerance.

        Kept until the next calibration; not saved. It takes some ten to thirty passes over the documents.

        Loss of a document: the share of its likeliest next tokens that differ from those with a read for
        every token in need. The guarantee is in expectation, for exchangeable documents and a frozen model:
        calibrate again after training. At least ``1 / risk_tolerance - 1`` documents are needed.

        Args:
            batches: token ids, or mappings with ``input_ids`` and perhaps ``attention_mask``; one row a
                document, none of them trained on.
            largest_tolerance: risk up to which thresholds are measured, in (0, 1]; a larger tolerance is
                kept, too, but skips no more.

        Raises:
            ValueError: if no layer predicts familiarity, or for what are no documents.
        """
        check_budget(self.model.mixers)
        if not 0 < largest_tolerance <= 1:
            raise ValueError(f"largest_tolerance {largest_tolerance} must lie in (0, 1]")
        shifts, documents = shift_grid(_thresholds(self.model.mixers)), load_documents(batches)
        mode = self.model.training
        self.model.eval()
        try:
            parts = [
                (len(part.tokens), document_judge(part, self._predictions, most_cautious=shifts[0]))
                for part in documents
            ]
            self.risk_curve = risk_curve(
                joined(parts),
                units=sum(count for count, _ in parts),
                shifts=shifts,
                fails=lambda losses: float(losses.double().mean()) > largest_tolerance,
            )
        finally:
            self.model.train(mode)
        return self.risk_curve

    def _predictions(self, documents: Documents, control: RoutingControl) -> Predictions:
        output = self.model(
            documents.tokens,
            attention_mask=documents.real,
            control=control,
            use_cache=False,
            output_routing=True,
        )
        return Predictions(
            tokens=self.lm_head(output.last_hidden_state).argmax(-1).cpu(),
            routes=torch.stack(list(output.routes), 1).to(torch.uint8).cpu(),
        )


def _thresholds(mixers: Sequence[ResidualBlock]) -> list[float]:
    """Return the thresholds of the layers that predict familiarity, in logits."""
    thresholds = [
        float(mixer.router.threshold_logit)
        for mixer in mixers
        if isinstance(mixer, CRAMBlock) and mixer.familiarity is not None
    ]
    if not thresholds:
        raise ValueError(
            "no layer of this model predicts familiarity, so there is no threshold to calibrate: "
            "mixer 'cram' has one"
        )
    return thresholds
