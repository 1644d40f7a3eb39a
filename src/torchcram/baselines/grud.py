"""GRU-D: a gated recurrent unit that decays (Che et al. 2018, arXiv 1606.01865), from its equations.

    delta_t = gap_t + (1 - seen_{t-1}) delta_{t-1}              time since each variable was last observed
    gamma   = exp(-rate delta)                                  decay of inputs, each variable its own rate
    Gamma   = exp(-max(0, W delta))                             decay of the state
    x_hat   = seen x + (1 - seen) (gamma x_last + (1 - gamma) mean)
    h_t     = GRU([x_hat, seen], Gamma_t h_{t-1})

Values are standardised, so the mean is 0. It attends to nothing.
Deviation: the decays have no offsets, and input rates are positive (softplus): no time, no decay; endless
time, the mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from torchcram.baselines.encoder import Encoding, MaskedVectors, SeriesEncoder, last_real


class GRUD(SeriesEncoder):
    """``h_t = GRU([x_hat_t, seen_t], Gamma_t h_{t-1})``, where ``x_hat`` is the value where it was seen, and
    fades towards the mean elsewhere.

    Args:
        variables: columns of the series.
        d_model: width of the recurrent state.
    """

    def __init__(self, variables: int, d_model: int):
        super().__init__(d_model)
        self.rate = nn.Parameter(torch.full((variables,), -3.0))
        self.state_decay = nn.Linear(variables, d_model, bias=False)
        self.inputs = nn.Linear(2 * variables, 3 * d_model)
        self.recurrent = nn.Linear(d_model, 3 * d_model)
        with torch.no_grad():
            self.state_decay.weight.mul_(0.1)

    def forward(self, series: MaskedVectors, *, steps: bool, whole: bool) -> Encoding:
        """Return the state after each step, and after the last real one.

        See :class:`torchcram.baselines.encoder.SeriesEncoder`.
        """
        elapsed = since_observed(series)
        driven = self.inputs(torch.cat([self.imputed(series, elapsed), series.seen], -1))
        decay = torch.exp(-self.state_decay(elapsed).relu())
        state, states = driven.new_zeros(driven.shape[0], driven.shape[-1] // 3), []
        for drive, fade in zip(driven.unbind(1), decay.unbind(1), strict=True):
            state = self._updated(drive, fade * state)
            states.append(state)
        by_step = torch.stack(states, 1)
        return Encoding(
            steps=by_step if steps else None, whole=last_real(by_step, series.real) if whole else None
        )

    def imputed(
        self, series: MaskedVectors, elapsed: Float[Tensor, "batch time variables"]
    ) -> Float[Tensor, "batch time variables"]:
        """Return observed values, and what is left of the latest observation where there is none."""
        kept = torch.exp(-softplus(self.rate) * elapsed)
        return series.seen * series.values + (1 - series.seen) * kept * last_observed(series)

    def _updated(self, drive: Tensor, state: Tensor) -> Tensor:
        reset, update, candidate = drive.chunk(3, -1)
        from_reset, from_update, from_candidate = self.recurrent(state).chunk(3, -1)
        update = torch.sigmoid(update + from_update)
        fresh = torch.tanh(candidate + torch.sigmoid(reset + from_reset) * from_candidate)
        return torch.lerp(fresh, state, update)


def last_observed(series: MaskedVectors) -> Float[Tensor, "batch time variables"]:
    """Return the latest value of each variable up to each step, its own included; 0, the mean, before the
    first.
    """
    steps = torch.arange(series.gap.shape[1], device=series.gap.device)[None, :, None]
    latest = torch.where(series.seen > 0, steps, 0).cummax(1).values
    return series.values.gather(1, latest)


def since_observed(series: MaskedVectors) -> Float[Tensor, "batch time variables"]:
    """Return the time since each variable was last observed *before* each step; since the sequence began
    if it never was.
    """
    time = series.gap.cumsum(1)[..., None]
    observed = torch.where(series.seen > 0, time, 0.0).cummax(1).values
    before = torch.cat([torch.zeros_like(observed[:, :1]), observed[:, :-1]], 1)
    return time - before
