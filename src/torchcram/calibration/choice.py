"""The threshold that a rule certifies, with what a user should know about it."""

from __future__ import annotations

from dataclasses import dataclass

from torchcram.calibration.curve import RiskCurve
from torchcram.calibration.rule import Rule


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was certified.

    Attributes:
        risk_tolerance, bound, confidence: the :class:`torchcram.calibration.rule.Rule`; no confidence for the
            bound ``"mean"``, which holds in expectation.
        reference: what answers were compared with: ``"cautious"``, the same model with a read for every token
            in need, or ``"labels"``.
        certified: whether the chosen shift keeps the rule. Always, against ``"cautious"``: the most cautious
            shift is the reference itself.
        threshold_shift: chosen, in logits: the most skipping shift that keeps the rule.
        empirical_risk, skipped_share, read_rate: at the chosen shift, means over the sequences.
        sequences: number of calibration sequences.
        next_shift, next_risk: the first shift that does not keep the rule; None if all do.
        further_sequences: how many more sequences with the losses of these would certify that one; None if no
            number would.
        curve: (shift, risk, skipped share), wherever one of the two changes.
    """

    risk_tolerance: float
    bound: str
    confidence: float | None
    reference: str
    certified: bool
    threshold_shift: float
    empirical_risk: float
    skipped_share: float
    read_rate: float
    sequences: int
    next_shift: float | None
    next_risk: float | None
    further_sequences: int | None
    curve: tuple[tuple[float, float, float], ...]


def certified_shifts(curve: RiskCurve, rule: Rule) -> int:
    """Return how many shifts keep the rule: the most cautious ones, since losses only grow."""
    return int(rule.certifies(curve.losses).sum())


def choose_shift(curve: RiskCurve, rule: Rule, *, reference: str = "cautious") -> Calibration:
    """Return the most skipping shift that the rule certifies.

    Raises:
        ValueError: if there are too few sequences for the tolerance, whatever the model does.
    """
    rule.check_units(len(curve.losses))
    kept = certified_shifts(curve, rule)
    risk, skipped = curve.losses.double().mean(0).tolist(), curve.skipped.double().nanmean(0).tolist()
    # Where none keeps the rule, the most cautious one is nearest to it; its risk is told as it is.
    chosen, beyond = max(kept - 1, 0), kept if kept < len(curve.shifts) else None
    needed = None if beyond is None else rule.units_for(curve.losses[:, beyond])
    return Calibration(
        risk_tolerance=rule.risk_tolerance,
        bound=rule.bound,
        confidence=rule.confidence if rule.bound == "betting" else None,
        reference=reference,
        certified=kept > 0,
        threshold_shift=curve.shifts[chosen],
        empirical_risk=risk[chosen],
        skipped_share=skipped[chosen],
        read_rate=float(curve.reads[:, chosen].double().nanmean()),
        sequences=len(curve.losses),
        next_shift=None if beyond is None else curve.shifts[beyond],
        next_risk=None if beyond is None else risk[beyond],
        further_sequences=None if needed is None else needed - len(curve.losses),
        curve=_corners(list(zip(curve.shifts, risk, skipped, strict=True)), chosen=chosen),
    )


def _corners(
    points: list[tuple[float, float, float]], *, chosen: int
) -> tuple[tuple[float, float, float], ...]:
    """Return the points at which something changes, those just before, both ends and the chosen one."""

    def differ(one: int, other: int) -> bool:
        return points[one][1:] != points[other][1:]

    last = len(points) - 1
    return tuple(
        point
        for index, point in enumerate(points)
        if index in (0, chosen, last) or differ(index, index - 1) or differ(index, index + 1)
    )
