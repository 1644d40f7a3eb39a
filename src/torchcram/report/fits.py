"""What a report fits to its curves: the transition in the read rate, and the power law of forgetting how to read.

Both are pure functions of arrays, and both answer None where the data do not support an answer.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import ruptures
from jaxtyping import Float
from scipy.optimize import OptimizeWarning, curve_fit

from torchcram.report.records import Points

MOST_JUMPS = 3
# Dynamic programming is quadratic in the number of points: longer curves are averaged over blocks first.
MOST_POINTS = 200
SMALLEST_RATE = 1e-4
SMALLEST_FALL = 1.5


@dataclass(frozen=True, kw_only=True)
class Transition:
    """The sharpest fall of a rate.

    Attributes:
        step: first training step after the fall.
        before, after: geometric means of the rate in the stretches on either side.
    """

    step: float
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """``rate = scale * exposures ** -exponent``, fitted on logarithms.

    Attributes:
        exponent, error: the exponent and its standard error.
        scale: rate at one exposure.
        explained: share of the (weighted) variance of the logarithms that the law explains, at most 1.
    """

    exponent: float
    error: float
    scale: float
    explained: float

    def at(self, exposures: Points) -> Points:
        """Return the fitted rate."""
        return self.scale * exposures**-self.exponent


def detect_transition(steps: Points, rate: Points) -> Transition | None:
    """Return the sharpest fall of a rate over training, or None if it never falls by a factor of 1.5 at once.

    Up to three jumps are fitted to the logarithm of the rate; how many, the Bayesian information criterion decides.

    Args:
        steps: training steps, ascending.
        rate: shares in [0, 1]; zeros count as 0.01%.
    """
    block = -(-len(rate) // MOST_POINTS)
    # The last block may be shorter; averaging logarithms keeps a fall of a factor a fall of a factor.
    starts = np.arange(0, len(rate), block) if len(rate) else np.array([], dtype=int)
    if len(starts) < 6:
        return None
    signal = np.add.reduceat(np.log(np.clip(rate, SMALLEST_RATE, 1.0)), starts) / np.diff([*starts, len(rate)])
    edges = _jumps(signal)
    means = [signal[a:b].mean() for a, b in pairwise(edges)]
    falls = -np.diff(means)
    if not len(falls) or falls.max() < np.log(SMALLEST_FALL):
        return None
    sharpest = int(falls.argmax())
    before, after = np.exp(means[sharpest]), np.exp(means[sharpest + 1])
    return Transition(step=float(steps[starts[edges[sharpest + 1]]]), before=float(before), after=float(after))


def _jumps(signal: Points) -> list[int]:
    """Return the edges of the best segmentation into one to four constant stretches, the ends included."""
    size = len(signal)
    search = ruptures.Dynp(model="l2", min_size=2, jump=1).fit(signal)
    candidates = [[size], *(search.predict(n_bkps=jumps) for jumps in range(1, min(MOST_JUMPS, size // 2 - 1) + 1))]
    # Below this a residual is rounding, not noise: its logarithm must not decide.
    tiny = 1e-6 * size
    costs = [size * np.log((search.cost.sum_of_costs(ends) + tiny) / size) + 2 * len(ends) * np.log(size) for ends in candidates]
    return [0, *candidates[int(np.argmin(costs))]]


def exposure_centres(edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " edges-1"]:
    """Return a representative number of exposures for each bin: the geometric middle, the plain one where a bin starts at 0."""
    low, high = edges[:-1], np.where(np.isfinite(edges[1:]), edges[1:], 2 * edges[:-1])
    return np.where(low > 0, np.sqrt(low * high), high / 2)


def fit_power_law(exposures: Points, queries: Points, reads: Points) -> PowerLaw | None:
    """Fit the share of queries that read as a power of exposures; None with fewer than four bins that hold reads.

    Args:
        exposures: of each bin, > 0 where it is to count.
        queries: number of queries in each bin.
        reads: how many of them read.
    """
    used = (exposures > 0) & (reads > 0)
    if used.sum() < 4:
        return None
    x, y, weight = np.log(exposures[used]), np.log(reads[used] / queries[used]), reads[used]
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)
        try:
            # Counts are Poisson: the relative error of a rate is 1 / sqrt(reads).
            (intercept, slope), covariance = curve_fit(lambda at, a, b: a + b * at, x, y, sigma=weight**-0.5)
        except OptimizeWarning:
            return None
    spread = np.average((y - np.average(y, weights=weight)) ** 2, weights=weight)
    residual = np.average((y - intercept - slope * x) ** 2, weights=weight)
    explained = 1.0 - residual / spread if spread > 0 else 0.0
    return PowerLaw(exponent=float(-slope), error=float(covariance[1, 1] ** 0.5), scale=float(np.exp(intercept)), explained=float(explained))
