"""A damped stochastic oscillator in the plane, simulated exactly over irregular gaps, and its Kalman filter.

``dz = A z dt + sigma dW`` with ``A = [[-damping, -frequency], [frequency, -damping]]``. ``A`` is a rotation
times a decay, and the noise is isotropic, so over a gap ``g`` the exact transition is ``exp(-damping g)``
times a rotation by ``frequency g``, with isotropic noise of variance ``stationary_variance (1 - exp(-2
damping g))``: no time-stepping error, whatever the gap. The Kalman filter that knows frequency, damping and
phase is the floor for one-step prediction (its covariance is a scalar, too).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Oscillator:
    """One oscillator per sequence.

    Frequencies in radians, dampings in 1, both per unit of time; noise as standard deviations.
    """

    frequency: Float[Tensor, " batch"]
    damping: Float[Tensor, " batch"]
    phase: Float[Tensor, " batch"]
    stationary_std: float
    observation_std: float

    def start(self) -> Float[Tensor, "batch 2"]:
        """Return the state at time zero: the point of the unit circle at ``phase``."""
        return torch.stack([self.phase.cos(), self.phase.sin()], -1)

    def advance(
        self, state: Float[Tensor, "batch 2"], gap: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch 2"]:
        """Return the expected state after ``gap``."""
        angle, scale = self.frequency * gap, torch.exp(-self.damping * gap)
        cos, sin = scale * angle.cos(), scale * angle.sin()
        return torch.stack([cos * state[:, 0] - sin * state[:, 1], sin * state[:, 0] + cos * state[:, 1]], -1)

    def noise_variance(self, gap: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the variance, per coordinate, that the process gains over ``gap``."""
        return self.stationary_std**2 * -torch.expm1(-2 * self.damping * gap)

    def simulate(
        self, gaps: Float[Tensor, "batch time"], *, generator: torch.Generator
    ) -> Float[Tensor, "batch time 2"]:
        """Draw noisy observations at the times ``cumsum(gaps)``; the process starts at :meth:`start` at
        time zero.
        """
        batch, time = gaps.shape
        shocks = torch.randn(time, batch, 2, generator=generator)
        errors = torch.randn(batch, time, 2, generator=generator) * self.observation_std
        angle, decay = self.frequency[:, None] * gaps, torch.exp(-self.damping[:, None] * gaps)
        turn = torch.polar(decay, angle).unbind(1)
        noise = torch.view_as_complex(shocks) * self.noise_variance_over(gaps).sqrt().T
        state, path = torch.view_as_complex(self.start()), []
        for step, shock in zip(turn, noise, strict=True):
            state = step * state + shock
            path.append(state)
        return torch.view_as_real(torch.stack(path, 1)) + errors

    def noise_variance_over(self, gaps: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        """:meth:`noise_variance` for a whole path of gaps."""
        return self.stationary_std**2 * -torch.expm1(-2 * self.damping[:, None] * gaps)


def kalman_predictions(
    oscillator: Oscillator,
    observations: Float[Tensor, "batch time 2"],
    gaps: Float[Tensor, "batch time"],
    horizons: Float[Tensor, "batch time"],
) -> Float[Tensor, "batch time 2"]:
    """Predict, after each observation, the observation ``horizons`` later, knowing the parameters: the
    least squared error possible.
    """
    mean, variance = oscillator.start(), torch.zeros_like(oscillator.damping)
    predictions = []
    for t in range(gaps.shape[1]):
        mean = oscillator.advance(mean, gaps[:, t])
        variance = torch.exp(-2 * oscillator.damping * gaps[:, t]) * variance + oscillator.noise_variance(
            gaps[:, t]
        )
        # Without process and observation noise nothing is left to learn from an observation: 0 / 0 means 0.
        gain = torch.where(variance > 0, variance / (variance + oscillator.observation_std**2), 0.0)
        mean = mean + gain[:, None] * (observations[:, t] - mean)
        variance = (1 - gain) * variance
        predictions.append(oscillator.advance(mean, horizons[:, t]))
    return torch.stack(predictions, 1)
