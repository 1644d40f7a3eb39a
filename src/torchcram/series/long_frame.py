"""The long frame, of pandas or polars, as a panel: columns ``series, time, variable, value``, one row an
observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from torchcram.series.task import Series
from torchcram.series.times import Clock, Stamps, read_stamps
from torchcram.series.values import is_missing, read_values
from torchcram.strict import nearest_hint

COLUMNS = ("series", "time", "variable", "value")


def read_frame(
    frame: Any, channels: Sequence[Any] | None, *, largest: float
) -> tuple[tuple[Series, ...], tuple[Any, ...], tuple[Any, ...], Clock]:
    """Return series, channels, names of the series and the kind of time stamps of a long frame.

    Args:
        frame: the observations, in any order.
        channels: of the training panel; None for those of the frame.
        largest: size of a value beyond which nothing was measured.

    Raises:
        ValueError: see :func:`torchcram.series.panel.read_panel`.
    """
    _require_columns(frame)
    owner, kind = (_names(frame, column) for column in ("series", "variable"))
    names = list(dict.fromkeys(owner))
    if not names:
        raise ValueError("the frame holds no series")
    known = tuple(sorted(dict.fromkeys(kind), key=str)) if channels is None else tuple(channels)
    channel = _channels(owner, kind, known)
    stamps = read_stamps(_column(frame, "time"), "column 'time'")
    value = read_values(_column(frame, "value"), "column 'value'")
    _require_rows(owner, kind, stamps, value, largest)
    place = {name: number for number, name in enumerate(names)}
    belongs = np.array([place[name] for name in owner])
    order = np.argsort(belongs, kind="stable")
    bounds = np.searchsorted(belongs[order], np.arange(len(names) + 1))
    chosen = [order[first:last] for first, last in pairwise(bounds.tolist())]
    series = tuple(
        Series.of_observations(stamps.moments(rows), channel[rows], value[rows], variables=len(known))
        for rows in chosen
    )
    return series, known, tuple(names), stamps.clock


def _require_columns(frame: Any) -> None:
    for column in COLUMNS:
        if column not in frame.columns:
            hint = nearest_hint(column, [str(name) for name in frame.columns])
            raise ValueError(
                f"the frame has no column {column!r} ({hint}): a long frame has the columns "
                f"{', '.join(COLUMNS)}, one row an observation"
            )


def _names(frame: Any, column: str) -> list[Any]:
    names = frame[column].to_list()
    for row, name in enumerate(names):
        if is_missing(name):
            raise ValueError(f"column {column!r}: row {row} is {name}; every observation needs a name there")
    return names


def _column(frame: Any, column: str) -> Any:
    """Return a column as an array; pandas' own types of numbers and dates as NumPy's where there are such."""
    entries = frame[column]
    if getattr(getattr(entries, "dtype", None), "tz", None) is not None and hasattr(entries, "dt"):
        return entries
    return entries.to_numpy()


def _channels(owner: list[Any], kind: list[Any], known: tuple[Any, ...]) -> Int[np.ndarray, " rows"]:
    code = {variable: number for number, variable in enumerate(known)}
    for name, variable in zip(owner, kind, strict=True):
        if variable not in code:
            hint = nearest_hint(str(variable), map(str, known))
            raise ValueError(
                f"series {name!r}, column {variable!r}: no training series had this variable: {hint}"
            )
    return np.array([code[variable] for variable in kind], dtype=np.int64)


def _require_rows(
    owner: list[Any], kind: list[Any], stamps: Stamps, value: Float64[np.ndarray, " rows"], largest: float
) -> None:
    """Name the first observation that cannot be right."""
    for row in np.flatnonzero(np.abs(np.nan_to_num(value, posinf=np.inf, neginf=-np.inf)) > largest)[:1]:
        raise ValueError(
            f"series {owner[row]!r}, column {kind[row]!r}: is {value[row]}; values must be finite "
            f"and at most {largest:g}; NaN is missing"
        )
    wrong = stamps.absent if stamps.ticks.dtype.kind != "f" else ~np.isfinite(stamps.ticks)
    for row in np.flatnonzero(wrong & ~np.isnan(value))[:1]:
        stamp = "missing" if stamps.absent[row] else stamps.ticks[row]
        raise ValueError(f"series {owner[row]!r}, column 'time': is {stamp}; time stamps must be finite")
