"""How the read rate of a pattern falls with its exposures: power law, exponential and logistic, fitted by
likelihood and compared by AIC.

Reads are counts: in a bin of ``n`` queries ``Binomial(n, p(x))`` of them read, where ``x`` is the number of
encounters, this one included. No law rises, and none exceeds 1, not even at the first encounter. Each has two
parameters, so that the comparison by Akaike's criterion is one of likelihoods. The exponent's interval is a
bootstrap over patterns: queries for one pattern are no independent draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize

Points = Float[np.ndarray, " bins"]
Counts = Int[np.ndarray, " bins"]

TINY = 1e-9
# Of the two parameters of each law.
BOUNDS = {
    "power": ((-50.0, 0.0), (0.0, 50.0)),
    "exponential": ((-50.0, 0.0), (0.0, 50.0)),
    "logistic": ((-50.0, 50.0), (0.0, 50.0)),
}
STARTS = ((-0.1, 0.5), (-0.1, 5.0), (4.0, 8.0))
LAWS: dict[str, Callable[[Points, float, float], Points]] = {
    "power": lambda x, a, b: np.exp(a - b * np.log(x)),
    "exponential": lambda x, a, b: np.exp(a - b * x / x.max()),
    "logistic": lambda x, a, b: 1 / (1 + np.exp(np.clip(b * x / x.max() - a, -50, 50))),
}


@dataclass(frozen=True, kw_only=True)
class CurveFit:
    """The three laws compared.

    Attributes:
        aic: Akaike's criterion by law; least is best.
        scale: of the power law: the read rate at the first encounter.
        exponent: of the power law.
        interval: its 95% bootstrap interval.
    """

    aic: dict[str, float]
    scale: float
    exponent: float
    interval: tuple[float, float]

    def power(self, x: Points) -> Points:
        """Return the read rate that the power law gives after so many encounters, at most 1."""
        return np.minimum(self.scale * x**-self.exponent, 1.0)

    @property
    def best(self) -> str:
        """The law with the least criterion."""
        return min(self.aic, key=lambda law: self.aic[law])


def encounters(edges: Int[np.ndarray, " edges"]) -> Float[np.ndarray, " edges-1"]:
    """Return a representative number of encounters for each bin of exposures ``low <= e < high``: the
    geometric middle of ``low + 1`` and ``high``.
    """
    return np.sqrt((edges[:-1] + 1.0) * edges[1:])


def fit_curve(
    x: Points,
    queries: Int[np.ndarray, "patterns bins"],
    reads: Int[np.ndarray, "patterns bins"],
    *,
    generator: np.random.Generator,
    resamples: int = 200,
) -> CurveFit | None:
    """Fit the three laws to the sums over patterns; None with fewer than four bins that hold queries, or
    without a read.

    Args:
        x: encounters of each bin, at least 1.
        queries: number of queries for each pattern in each bin.
        reads: how many of them read.
        generator: draws the bootstrap's resamples.
        resamples: of the bootstrap.
    """
    used = queries.sum(0) > 0
    if used.sum() < 4 or not reads.sum():
        return None
    x, queries, reads = x[used], queries[:, used], reads[:, used]
    fits = {law: _fit(law, x, queries.sum(0), reads.sum(0)) for law in LAWS}
    chosen = generator.integers(len(queries), size=(resamples, len(queries)))
    parameters = fits["power"][:2]
    exponents = [
        _fit("power", x, queries[rows].sum(0), reads[rows].sum(0), starts=(parameters,))[1]
        for rows in chosen
        if reads[rows].sum()
    ]
    low, high = np.quantile(exponents, (0.025, 0.975))
    (logarithm, exponent, _), aic = fits["power"], {law: fit[2] for law, fit in fits.items()}
    return CurveFit(
        aic=aic, scale=float(np.exp(logarithm)), exponent=exponent, interval=(float(low), float(high))
    )


def _fit(
    law: str, x: Points, queries: Counts, reads: Counts, *, starts: Sequence[tuple[float, float]] = STARTS
) -> tuple[float, float, float]:
    """Return both parameters and Akaike's criterion."""

    def cost(parameters: Float[np.ndarray, " 2"]) -> float:
        p = np.clip(LAWS[law](x, *parameters), TINY, 1 - TINY)
        return float(-(reads * np.log(p) + (queries - reads) * np.log1p(-p)).sum())

    options = {"xatol": 1e-5, "fatol": 1e-6, "maxiter": 1000}
    low, high = np.array(BOUNDS[law]).T
    searches = (
        minimize(cost, np.clip(start, low, high), method="Nelder-Mead", bounds=BOUNDS[law], options=options)
        for start in starts
    )
    best = min(searches, key=lambda one: float(one.fun))
    return float(best.x[0]), float(best.x[1]), 4.0 + 2.0 * float(best.fun)
