"""What a series has shown so far: running statistics as further variables, and the latest value of each
variable carried forward.

Both help any model that reads a series step by step: most variables are missing at most steps, and what
matters is often how low one has ever been. They look at the past alone, so they tell nothing of later steps.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int

from torchcram.series.task import EncodedSeries, Series, SeriesStatistics

# Typical gaps after which an observation is half forgotten by the feature that tells how fresh it is.
FRESH = 4.0


def with_running_statistics(series: Series) -> Series:
    """Return the series with further variables: mean, least, greatest and (log) number of the values of each
    variable so far.

    They are observed where their variable is. Variables stay in order: all values, then all means, and so
    on.
    """
    seen = ~np.isnan(series.values)
    count = seen.cumsum(0)
    mean = np.where(seen, series.values, 0.0).cumsum(0) / np.maximum(count, 1)
    least = np.minimum.accumulate(np.where(seen, series.values, np.inf), 0)
    greatest = np.maximum.accumulate(np.where(seen, series.values, -np.inf), 0)
    running = (np.where(seen, part, np.nan) for part in (mean, least, greatest, np.log1p(count)))
    return Series(time=series.time, values=np.concatenate([series.values, *running], 1))


def encode_carried(
    statistics: SeriesStatistics, series: Series, *, variables: int, start: float | None = None
) -> EncodedSeries:
    """Return what a model sees of a series whose values are carried forward.

    A step holds, for every column, its latest standardised value (0, the mean, before the first), and for
    each of the first ``variables`` columns a flag of whether it was observed right now, and its freshness: 1
    when just observed, falling towards 0; 0 if it never was.

    Args:
        statistics: fitted on training series with the same columns.
        series: perhaps with running statistics.
        variables: columns that are no statistics of others.
        start: see :meth:`torchcram.series.task.SeriesStatistics.encode`.
    """
    plain = statistics.encode(series, start=start)
    values, seen = plain.inputs.numpy().astype(np.float64).reshape(len(plain.gap), 2, -1).swapaxes(0, 1)
    latest = np.maximum.accumulate(np.where(seen > 0, np.arange(len(seen))[:, None], -1), 0)
    carried = np.where(latest >= 0, np.take_along_axis(values, np.maximum(latest, 0), 0), 0.0)
    fresh = _freshness(latest[:, :variables], plain.gap.numpy().astype(np.float64).cumsum())
    inputs = np.concatenate([carried, seen[:, :variables], fresh], 1)
    return EncodedSeries(inputs=torch.from_numpy(inputs).float(), gap=plain.gap)


def _freshness(
    latest: Int[np.ndarray, "steps variables"], time: Float64[np.ndarray, " steps"]
) -> Float64[np.ndarray, "steps variables"]:
    age = time[:, None] - time[np.maximum(latest, 0)]
    return np.where(latest >= 0, 1 / (1 + age / FRESH), 0.0)
