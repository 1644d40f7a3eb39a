"""A panel: the many forms in which people hold collections of irregular series, read into one.

Accepted: an array (series, channels, time), as aeon and sktime use it, or (series, time) for one channel; a
list of arrays (channels, time) of unequal lengths, at the times 0, 1, 2 and so on; a list of pairs (time,
values); a long pandas frame with the columns ``series, time, variable, value``, one row an observation. NaN
is missing. Steps may come in any order; those with the same time stamp are joined. What cannot be right is an
error that names series and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64

from torchcram.series.task import Series
from torchcram.strict import nearest_hint

COLUMNS = ("series", "time", "variable", "value")
# Beyond it nothing was measured: single precision ends near 3e38.
LARGEST = 1e30


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Series with the same channels.

    Attributes:
        series: in the order given; of a frame: in the order in which they first appear.
        channels: names, or numbers.
        names: of the series, or their numbers.
    """

    series: tuple[Series, ...]
    channels: tuple[Any, ...]
    names: tuple[Any, ...]


def read_panel(X: Any, *, channels: Sequence[Any] | None = None) -> Panel:  # noqa: N803 (the name that scikit-learn gives it)
    """Read a collection of series.

    Args:
        X: in one of the forms above.
        channels: of the training panel, to which this one must conform; None for whatever there is.

    Raises:
        ValueError: for infinite or unreasonably large values, time stamps that are not finite, shapes that do
            not fit, unknown channels.
    """
    if hasattr(X, "columns"):
        return _of_frame(X, channels)
    if isinstance(X, np.ndarray) and X.dtype != object and X.ndim not in (2, 3):
        raise ValueError(
            f"X has shape {X.shape}: an array of series is (series, channels, time), or (series, "
            "time) for one channel"
        )
    if len(X) == 0:
        raise ValueError("X holds no series")
    pairs = [_pair(one, row) for row, one in enumerate(X)]
    width = len(pairs[0][1]) if channels is None else len(channels)
    for row, (_, values) in enumerate(pairs):
        if len(values) != width:
            raise ValueError(
                f"series {row} has {len(values)} channels, "
                f"{'series 0' if channels is None else 'the training series'} had {width}"
            )
    known = tuple(range(width)) if channels is None else tuple(channels)
    series = tuple(_checked(row, moments, values.T, known) for row, (moments, values) in enumerate(pairs))
    return Panel(series=series, channels=known, names=tuple(range(len(series))))


def _pair(one: Any, row: int) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, "channels steps"]]:
    if isinstance(one, tuple) and len(one) != 2:
        raise ValueError(
            f"series {row} is a tuple of {len(one)}: with time stamps, a series is a pair (time, values)"
        )
    stamps, one = one if isinstance(one, tuple) else (None, one)
    values = _numbers(one, f"series {row}")
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise ValueError(
            f"series {row} has shape {values.shape}: one series is (channels, time), or (time,) "
            "for one channel"
        )
    moments = (
        np.arange(values.shape[1], dtype=np.float64)
        if stamps is None
        else _numbers(stamps, f"series {row}, column 'time'")
    )
    if moments.shape != values.shape[1:]:
        raise ValueError(
            f"series {row}, column 'time': {moments.size} time stamps for {values.shape[1]} steps"
        )
    return moments, values


def _numbers(values: Any, place: str) -> Float64[np.ndarray, "..."]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: holds what is no number: {str(values)[:60]}") from None


def _checked(
    name: Any,
    time: Float64[np.ndarray, " steps"],
    values: Float64[np.ndarray, "steps channels"],
    channels: Sequence[Any],
) -> Series:
    _require_values(name, values, channels)
    # A step without an observation may have any time stamp: it is padding.
    wrong = np.flatnonzero(~np.isfinite(time) & ~np.isnan(values).all(1))
    if len(wrong):
        raise ValueError(
            f"series {name!r}, column 'time': step {wrong[0]} is {time[wrong[0]]}; time stamps must be finite"
        )
    return Series.of_vectors(time, values)


def _require_values(
    name: Any, values: Float64[np.ndarray, "steps channels"], channels: Sequence[Any]
) -> None:
    wrong = np.argwhere(np.abs(np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)) > LARGEST)
    if len(wrong):
        step, column = wrong[0]
        advice = f"values must be finite and at most {LARGEST:g}; NaN is missing"
        raise ValueError(
            f"series {name!r}, column {channels[column]!r}: step {step} is {values[step, column]}; {advice}"
        )


def _of_frame(frame: Any, channels: Sequence[Any] | None) -> Panel:
    for column in COLUMNS:
        if column not in frame.columns:
            hint = nearest_hint(column, [str(name) for name in frame.columns])
            raise ValueError(
                f"the frame has no column {column!r} ({hint}): a long frame has the columns "
                f"{', '.join(COLUMNS)}, one row an observation"
            )
    names, variables = (list(dict.fromkeys(frame[column].tolist())) for column in ("series", "variable"))
    if not names:
        raise ValueError("the frame holds no series")
    known = tuple(sorted(variables, key=str)) if channels is None else tuple(channels)
    code = {variable: number for number, variable in enumerate(known)}
    owner, kind = frame["series"].tolist(), frame["variable"].tolist()
    unknown = [row for row, variable in enumerate(kind) if variable not in code]
    if unknown:
        hint = nearest_hint(str(kind[unknown[0]]), map(str, known))
        raise ValueError(
            f"series {owner[unknown[0]]!r}, column {kind[unknown[0]]!r}: no training series had "
            f"this variable: {hint}"
        )
    time, value = (_numbers(frame[column].to_numpy(), f"column {column!r}") for column in ("time", "value"))
    channel = np.array([code[variable] for variable in kind], dtype=np.int64)
    _require_rows(owner, kind, time, value)
    place = {name: number for number, name in enumerate(names)}
    belongs = np.array([place[name] for name in owner])
    order = np.argsort(belongs, kind="stable")
    bounds = np.searchsorted(belongs[order], np.arange(len(names) + 1))
    chosen = [order[first:last] for first, last in pairwise(bounds.tolist())]
    series = tuple(
        Series.of_observations(time[rows], channel[rows], value[rows], variables=len(known))
        for rows in chosen
    )
    return Panel(series=series, channels=known, names=tuple(names))


def _require_rows(
    owner: Any, kind: Any, time: Float64[np.ndarray, " rows"], value: Float64[np.ndarray, " rows"]
) -> None:
    """Name the first observation that cannot be right."""
    large = np.abs(np.nan_to_num(value, nan=0.0, posinf=np.inf, neginf=-np.inf)) > LARGEST
    for row in np.flatnonzero(large)[:1]:
        raise ValueError(
            f"series {owner[row]!r}, column {kind[row]!r}: is {value[row]}; values must be finite "
            f"and at most {LARGEST:g}; NaN is missing"
        )
    for row in np.flatnonzero(~np.isfinite(time) & ~np.isnan(value))[:1]:
        raise ValueError(f"series {owner[row]!r}, column 'time': is {time[row]}; time stamps must be finite")
