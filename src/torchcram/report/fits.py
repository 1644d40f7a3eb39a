"""What a report fits to its curves: the transition in the read rate.

A pure function of arrays, which answers None where the data do not support one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import ruptures

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


def detect_transition(steps: Points, rate: Points) -> Transition | None:
    """Return the sharpest fall of a rate over training, or None if it never falls by a factor of 1.5 at once.

    Up to three jumps are fitted to the logarithm of the rate; how many, the Bayesian information criterion
    decides.

    Args:
        steps: training steps, ascending.
        rate: shares in [0, 1]; zeros count as 0.01%.
    """
    block = -(-len(rate) // MOST_POINTS)
    # The last block may be shorter; averaging logarithms keeps a fall of a factor a fall of a factor.
    starts = np.arange(0, len(rate), block) if len(rate) else np.array([], dtype=int)
    if len(starts) < 6:
        return None
    signal = np.add.reduceat(np.log(np.clip(rate, SMALLEST_RATE, 1.0)), starts) / np.diff(
        [*starts, len(rate)]
    )
    edges = _jumps(signal)
    means = [signal[a:b].mean() for a, b in pairwise(edges)]
    falls = -np.diff(means)
    if not len(falls) or falls.max() < np.log(SMALLEST_FALL):
        return None
    sharpest = int(falls.argmax())
    before, after = np.exp(means[sharpest]), np.exp(means[sharpest + 1])
    return Transition(
        step=float(steps[starts[edges[sharpest + 1]]]), before=float(before), after=float(after)
    )


def _jumps(signal: Points) -> list[int]:
    """Return the edges of the best segmentation into one to four constant stretches, the ends included."""
    size = len(signal)
    search = ruptures.Dynp(model="l2", min_size=2, jump=1).fit(signal)
    candidates = [
        [size],
        *(search.predict(n_bkps=jumps) for jumps in range(1, min(MOST_JUMPS, size // 2 - 1) + 1)),
    ]
    # Below this a residual is rounding, not noise: its logarithm must not decide.
    tiny = 1e-6 * size
    costs = [
        size * np.log((search.cost.sum_of_costs(ends) + tiny) / size) + 2 * len(ends) * np.log(size)
        for ends in candidates
    ]
    return [0, *candidates[int(np.argmin(costs))]]
