"""Does the guarantee hold? Calibrate on random subsets of the measured units, test on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcram.calibration.choice import certified_shifts
from torchcram.calibration.curve import RiskCurve
from torchcram.calibration.rule import Rule


@dataclass(frozen=True, kw_only=True)
class SplitStudy:
    """What came of the splits; means over them, on the units that a split tests on.

    Attributes:
        risk_tolerance, bound, confidence, reference: see :class:`torchcram.calibration.choice.Calibration`.
        calibration_sequences, test_sequences, splits: the set-up.
        certified: whether every split certified a threshold that skips reads.
        certified_share: share of the splits that did.
        mean_risk, standard_error: realised risk; standard deviation over the splits by the root of their
            number.
        exceeded_share: share of the splits whose realised risk is above the tolerance.
        mean_skipped: share of the reads that could be skipped which are skipped.
        read_rate, floor, reads_over_floor: share of the steps that read, the task's floor, their ratio; None
            where the task has no oracle.
    """

    risk_tolerance: float
    bound: str
    confidence: float | None
    reference: str
    calibration_sequences: int
    test_sequences: int
    splits: int
    certified: bool
    certified_share: float
    mean_risk: float
    standard_error: float
    exceeded_share: float
    mean_skipped: float
    read_rate: float
    floor: float | None
    reads_over_floor: float | None

    @property
    def holds(self) -> bool:
        """Whether the mean realised risk is within two standard errors of the tolerance."""
        return self.mean_risk <= self.risk_tolerance + 2 * self.standard_error


def draw_splits(
    units: int, *, calibration: int, splits: int, generator: torch.Generator
) -> Int[Tensor, "splits units"]:
    """Return random orders of the units: the first ``calibration`` of each are calibrated on.

    Raises:
        ValueError: if nothing is left to test on.
    """
    if calibration >= units:
        raise ValueError(
            f"{calibration} calibration sequences leave nothing to test on: {units} were measured"
        )
    return torch.stack([torch.randperm(units, generator=generator) for _ in range(splits)])


def none_certifies(
    rule: Rule, orders: Int[Tensor, "splits units"], *, calibration: int
) -> Callable[[Float[Tensor, " units"]], bool]:
    """Return whether no split would certify losses: a curve that ends there is long enough for all."""
    return lambda losses: not bool(rule.certifies(losses[orders[:, :calibration]].T).any())


def split_study(
    curve: RiskCurve,
    rule: Rule,
    orders: Int[Tensor, "splits units"],
    *,
    calibration: int,
    floor: float | None = None,
    reference: str = "cautious",
) -> SplitStudy:
    """Calibrate and test on every split.

    Args:
        curve: of all units, at least up to where :func:`none_certifies`.
        rule: what is to be certified.
        orders: from :func:`draw_splits`.
        calibration: how many units of each order are calibrated on.
        floor: least share of the steps that must read.
        reference: what answers were compared with.

    Raises:
        ValueError: if there are too few sequences for the tolerance, whatever the model does.
    """
    rule.check_units(calibration)
    results = torch.tensor(
        [_test(curve, rule, order[:calibration], order[calibration:]) for order in orders],
        dtype=torch.float64,
    )
    skips, risk, skipped, reads = results.T
    read_rate = float(reads.mean())
    return SplitStudy(
        risk_tolerance=rule.risk_tolerance,
        bound=rule.bound,
        confidence=rule.confidence if rule.bound == "betting" else None,
        reference=reference,
        calibration_sequences=calibration,
        test_sequences=orders.shape[1] - calibration,
        splits=len(orders),
        certified=bool(skips.all()),
        certified_share=float(skips.mean()),
        mean_risk=float(risk.mean()),
        standard_error=float(risk.std() / len(orders) ** 0.5) if len(orders) > 1 else 0.0,
        exceeded_share=float((risk > rule.risk_tolerance).double().mean()),
        mean_skipped=float(skipped.nanmean()),
        read_rate=read_rate,
        floor=floor,
        reads_over_floor=read_rate / floor if floor else None,
    )


def _test(curve: RiskCurve, rule: Rule, calibrated: Tensor, tested: Tensor) -> tuple[float, ...]:
    """Return whether a threshold that skips was certified, and the risk, the skipped share and the read rate
    on the other units.
    """
    kept = certified_shifts(curve.rows(calibrated), rule)
    column, rest = max(kept - 1, 0), curve.rows(tested)
    skips = kept > 0 and bool(curve.skipped[:, column].nansum() > 0)
    return (
        float(skips),
        float(rest.losses[:, column].double().mean()),
        float(rest.skipped[:, column].double().nanmean()),
        float(rest.reads[:, column].double().nanmean()),
    )
