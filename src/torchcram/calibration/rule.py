"""When a risk is certified: how small the losses of so many units must be.

A *unit* is a sequence or a document; its loss lies in [0, 1]. Units are exchangeable, and the model is
frozen. The two bounds promise different things:

- ``mean``: ``(n risk + 1) / (n + 1) <= tolerance``. The risk of a further unit is at most the tolerance *in
  expectation*, over the calibration units and that unit (conformal risk control, Angelopoulos et al. 2022).
- ``betting``: a bettor who stakes a fixed share on every unit's loss being below the tolerance has multiplied
  his capital by ``1 / (1 - confidence)``. If the risk were above the tolerance, his capital would not grow in
  expectation, so that this happens with probability ``1 - confidence`` at most (Waudby-Smith and Ramdas
  2024). The risk is at most the tolerance *with that confidence* over the calibration units, if these are
  drawn independently. This says more, and takes more units.

Both fail the sooner the larger any loss is, and neither depends on the order of the units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.strict import require_choice

Bound = Literal["mean", "betting"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What has to be certified, and how.

    Attributes:
        risk_tolerance: bound of the risk, in (0, 1).
        bound: ``"mean"`` or ``"betting"``.
        confidence: probability with which ``"betting"`` holds, in (0, 1); ``"mean"`` has none.
    """

    risk_tolerance: float
    bound: str = "mean"
    confidence: float = 0.9

    def __post_init__(self) -> None:
        require_choice("bound", self.bound, ("mean", "betting"))
        for name in ("risk_tolerance", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must lie strictly between 0 and 1")

    @property
    def units_needed(self) -> int:
        """Number of units below which nothing can be certified, whatever the model does."""
        if self.bound == "mean":
            return math.ceil(1 / self.risk_tolerance - 1 - 1e-9)
        return math.ceil(self._goal / math.log1p(self.risk_tolerance) - 1e-9)

    def check_units(self, units: int) -> None:
        """Raise ValueError if so few units can certify nothing."""
        if units < self.units_needed:
            raise ValueError(
                f"{units} calibration sequences cannot certify a risk of {self.risk_tolerance}: at least "
                f"{self.units_needed} are needed"
            )

    def certifies(self, losses: Float[Tensor, "units columns"]) -> Bool[Tensor, " columns"]:
        """Return for which columns of losses the risk is certified."""
        units, losses = len(losses), losses.double()
        if self.bound == "mean":
            return (units * losses.mean(0) + 1) / (units + 1) <= self.risk_tolerance
        return self._growth(losses) * units >= self._goal

    def fails(self, losses: Float[Tensor, " units"]) -> bool:
        """Return whether these losses, and so any that are nowhere smaller, are not certified."""
        return not bool(self.certifies(losses[:, None])[0])

    def units_for(self, losses: Float[Tensor, " units"]) -> int | None:
        """Return the number of units at which losses like these would be certified; None if at none."""
        if self.bound == "mean":
            room, wanted = self.risk_tolerance - float(losses.double().mean()), 1 - self.risk_tolerance
        else:
            room, wanted = float(self._growth(losses.double()[:, None])[0]), self._goal
        return math.ceil(wanted / room - 1e-9) if room > 0 else None

    @property
    def _goal(self) -> float:
        """Logarithm of the capital that has to be reached."""
        return -math.log1p(-self.confidence)

    def _growth(self, losses: Float[Tensor, "units columns"]) -> Float[Tensor, " columns"]:
        """Return the logarithm of a bettor's growth for each unit.

        The stake is fixed before the losses are seen: the best one if their mean were near the tolerance and
        all of them 0 or 1.
        """
        stake = min(1.0, math.sqrt(2 * self._goal / (len(losses) * self.risk_tolerance)))
        return torch.log1p(-stake * (losses - self.risk_tolerance)).mean(0)
