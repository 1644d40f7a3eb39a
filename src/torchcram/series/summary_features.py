"""Fixed-length summaries of irregular series, for models that know no time: a gradient-boosted ensemble,
above all.

Of each variable of a series: first, last, least, greatest and mean value, deviation, number of values, time
of the last one and slope over time. NaN where nothing was observed, which such models take as it is.
Summaries of steps look at their own recent past, so they are as causal as a model.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

from torchcram.series.task import Series

SUMMARY = ("first", "last", "least", "greatest", "mean", "deviation", "count", "last_time", "slope")
# Steps that the summary of a step looks back on, its own included.
LOOK_BACK = (8, 32)


def summarise(series: Series) -> Float64[np.ndarray, " features"]:
    """Return the summary of a series, statistic by statistic (see :data:`SUMMARY`), and its number of
    steps.
    """
    seen = ~np.isnan(series.values)
    count = seen.sum(0)
    features = np.full((len(SUMMARY), series.values.shape[1]), np.nan)
    for column in np.flatnonzero(count):
        steps = seen[:, column]
        features[:, column] = _summarised(series.time[steps], series.values[steps, column])
    features[SUMMARY.index("count")] = count
    return np.append(features.ravel(), float(len(series.time)))


def _summarised(time: Float64[np.ndarray, " some"], value: Float64[np.ndarray, " some"]) -> list[float]:
    spread = time - time.mean()
    slope = float(spread @ value / (spread @ spread)) if len(time) > 1 else np.nan
    return [
        value[0],
        value[-1],
        value.min(),
        value.max(),
        value.mean(),
        value.std(),
        len(value),
        time[-1],
        slope,
    ]


def summarise_steps(
    inputs: Float[np.ndarray, "windows steps channels"], gap: Float[np.ndarray, "windows steps"]
) -> Float64[np.ndarray, "rows features"]:
    """Return one row a step, window after window: its values, its gap, and mean, deviation, least and
    greatest value over the latest steps.
    """
    parts = [inputs.astype(np.float64), gap[..., None].astype(np.float64)]
    for steps in LOOK_BACK:
        padded = np.pad(inputs.astype(np.float64), ((0, 0), (steps - 1, 0), (0, 0)), constant_values=np.nan)
        view = np.lib.stride_tricks.sliding_window_view(padded, steps, axis=1)
        parts += [np.nanmean(view, -1), np.nanstd(view, -1), np.nanmin(view, -1), np.nanmax(view, -1)]
    joined = np.concatenate(parts, -1)
    return joined.reshape(-1, joined.shape[-1])
