"""Risk curves whose truth is known, and a toy model whose routes change as a real one's do."""

import itertools
import random

import torch
from torch import Tensor

from torchcram.calibration.curve import Judgement, RiskCurve

# A fine grid, so that a choice is limited by the bound and not by the grid.
SHIFTS = tuple(float(shift) for shift in torch.linspace(8.0, -8.0, 65))


def curve_of(losses: Tensor, shifts: tuple[float, ...], skipped: Tensor | None = None) -> RiskCurve:
    skipped = torch.zeros_like(losses) if skipped is None else skipped
    return RiskCurve(shifts=shifts, losses=losses, skipped=skipped, reads=1 - skipped)


def planted(sequences: int, *, seed: int, harm: float = 0.12, spread: float = 1.0) -> RiskCurve:
    """Each sequence loses answers once the shift falls below a bound of its own; skipping rises as the
    shift falls. Nothing is lost at the first shift."""
    generator = torch.Generator().manual_seed(seed)
    bound = spread * torch.randn(sequences, 1, generator=generator) - 0.5
    severity = torch.rand(sequences, 1, generator=generator)
    shifts = torch.tensor(SHIFTS)
    losses = (severity * harm * (1 + (bound - shifts).clamp_min(0))).clamp_max(1.0) * (shifts < bound)
    losses[:, 0] = 0.0
    skipped = torch.sigmoid(2 * (1 - shifts)).expand(sequences, -1)
    return curve_of(losses.cummax(1).values, SHIFTS, skipped)


class ToyModel:
    """Units of some tokens in two layers. A token of the first layer is familiar where its prediction lies
    above the threshold; in the second layer predictions depend on what the first one did. The loss of a unit
    is any number, drawn for each combination of routes: it rises and falls as the threshold moves."""

    def __init__(self, units: int, *, tokens: int, seed: int):
        self.units, self.tokens, self.seed = units, tokens, seed
        self.asked: list[int] = []

    def __call__(self, shift: float, units: Tensor) -> Judgement:
        self.asked.append(len(units))
        routes = [self.routes(unit, shift) for unit in units.tolist()]
        losses = [self._loss(unit, own) for unit, own in zip(units.tolist(), routes, strict=True)]
        skipped = torch.tensor([sum(map(sum, own)) / (2 * self.tokens) for own in routes])
        return Judgement(
            losses=torch.tensor(losses),
            skipped=skipped,
            reads=1 - skipped,
            routes=tuple(bytes(itertools.chain(*own)) for own in routes),
        )

    def _loss(self, unit: int, routes: tuple[tuple[bool, ...], ...]) -> float:
        """Nothing is lost where nothing is skipped."""
        return random.Random(f"{self.seed} {unit} {routes!r}").random() ** 8 * any(map(any, routes))

    def routes(self, unit: int, shift: float) -> tuple[tuple[bool, ...], ...]:
        first = self._layer(f"{self.seed} {unit}", shift)
        return first, self._layer(f"{self.seed} {unit} {first}", shift)

    def _layer(self, seed: str, shift: float) -> tuple[bool, ...]:
        draw = random.Random(seed)
        return tuple(draw.gauss(0, 2) > shift for _ in range(self.tokens))
