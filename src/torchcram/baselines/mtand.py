"""mTAND: multi-time attention (Shukla and Marlin 2021, arXiv 2101.10318), implemented anew from the paper's
equations.

    phi(t)   = [w_0 t + a_0, sin(w_1 t + a_1), ...]       learned embedding of a moment
    score    = phi(r) W_q W_k^T phi(t)^T / sqrt(size)     of reference moment r and observation time t
    x_hat(r) = softmax(score) x                           over the moments at which *this variable* was seen
    steps    = GRU(linear([x_hat, intensity]))            along the reference moments

Each head has a score of its own.

Reference moments lie evenly between 0 and ``span``; the whole is the state of the GRU after the last. What is
asked of every step takes the steps' own moments as references. Observations are a set: their order does not
matter. It is not causal along the series' own steps.
Deviation: the second half of what is interpolated is how densely a variable was seen, its flag attended over
*all* moments; over its own moments alone, as in the paper's code, a flag is always one.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcram.baselines.encoder import Encoding, MaskedVectors, SeriesEncoder
from torchcram.strict import require_positive


class TimeEmbedding(nn.Module):
    """``phi(t) = [w_0 t + a_0, sin(w_1 t + a_1), ...]``: ``size`` learned features of a moment, in units of
    the span.
    """

    def __init__(self, size: int):
        super().__init__()
        # From one turn over the whole span to forty.
        self.frequency = nn.Parameter(
            torch.cat([torch.ones(1), 2 * math.pi * torch.logspace(0, math.log10(40), size - 1)])
        )
        self.phase = nn.Parameter(torch.zeros(size))

    def forward(self, moment: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch size"]:
        """Return the features of each moment."""
        linear, *periodic = (moment[..., None] * self.frequency + self.phase).split(
            [1, len(self.phase) - 1], -1
        )
        return torch.cat([linear, *(part.sin() for part in periodic)], -1)


class MultiTimeAttention(nn.Module):
    """``x_hat(r) = sum_t softmax_t(phi(r) W_q W_k^T phi(t)^T / sqrt(size)) x_t`` for each variable, over the
    moments ``t`` at which it was seen, at any moments ``r``.

    Args:
        variables: columns of the series.
        d_model: width of the result.
        heads: embeddings of time that attend side by side.
        time_size: size of each.
    """

    def __init__(self, variables: int, d_model: int, *, heads: int = 4, time_size: int = 16):
        super().__init__()
        require_positive(heads=heads, time_size=time_size - 1)
        self.heads, self.embed = heads, TimeEmbedding(time_size)
        self.query, self.key = (nn.Linear(time_size, heads * time_size, bias=False) for _ in range(2))
        self.out = nn.Linear(2 * heads * variables, d_model)

    def forward(
        self, moment: Float[Tensor, "batch moments"], time: Float[Tensor, "batch time"], series: MaskedVectors
    ) -> Float[Tensor, "batch moments d_model"]:
        """Return what the series, whose steps have the times ``time``, say about the moments (both in
        units of the span).
        """
        queries, keys = (
            part(self.embed(at)).unflatten(-1, (self.heads, -1))
            for part, at in ((self.query, moment), (self.key, time))
        )
        scores = torch.einsum("bmhe,bthe->bhmt", queries, keys) / math.sqrt(queries.shape[-1])
        # Softmax over the moments of each variable, with one common maximum: numerators and denominators are
        # two matrix products.
        scores = scores.masked_fill(~series.real[:, None, None], -torch.inf)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        values, seen = (
            torch.einsum("bhmt,btd->bmhd", weights, part)
            for part in (series.values * series.seen, series.seen)
        )
        dense = weights.sum(-1).transpose(1, 2)[..., None]
        return self.out(torch.cat([values / seen.clamp_min(1e-6), seen / dense], -1).flatten(2))


class MTAND(SeriesEncoder):
    """``GRU(relu(x_hat(r_1)), relu(x_hat(r_2)), ...)`` along reference moments ``r``, at which the series is
    interpolated.

    Args:
        variables: columns of the series.
        d_model: width.
        references: number of reference moments.
        span: time over which they are spread: that of the training series.
        heads, time_size: see :class:`MultiTimeAttention`.
    """

    def __init__(
        self,
        variables: int,
        d_model: int,
        *,
        references: int = 64,
        span: float = 1.0,
        heads: int = 4,
        time_size: int = 16,
    ):
        super().__init__(d_model)
        require_positive(references=references, span=span)
        self.references, self.span = references, span
        self.attention = MultiTimeAttention(variables, d_model, heads=heads, time_size=time_size)
        self.recurrence = nn.GRU(d_model, d_model, batch_first=True)

    def forward(self, series: MaskedVectors, *, steps: bool, whole: bool) -> Encoding:
        """Return the states at the steps' own moments, and the one after the last reference.

        See :class:`torchcram.baselines.encoder.SeriesEncoder`.
        """
        time = series.gap.cumsum(1) / self.span
        moment = torch.linspace(0.0, 1.0, self.references, dtype=time.dtype, device=time.device).expand(
            len(time), -1
        )
        return Encoding(
            steps=self._followed(time, time, series) if steps else None,
            whole=self._followed(moment, time, series)[:, -1] if whole else None,
        )

    def _followed(self, moment: Tensor, time: Tensor, series: MaskedVectors) -> Tensor:
        return self.recurrence(self.attention(moment, time, series).relu())[0]
