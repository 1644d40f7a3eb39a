"""A panel: the many forms in which people hold collections of irregular series, read into one.

Accepted: an array (series, channels, time), as aeon and sktime use it, or (series, time) for one channel; a
list of arrays (channels, time) of unequal lengths, at the times 0, 1, 2 and so on; a list of pairs (time,
values); a long frame with the columns ``series, time, variable, value``, one row an observation. NaN is
missing. Steps may come in any order; those with the same time stamp are joined. What cannot be right is an
error that names series and column; what is likely another form is a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Set, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from torchcram.series.long_frame import read_frame
from torchcram.series.task import Series
from torchcram.series.times import Clock, read_stamps
from torchcram.series.values import read_values

# Beyond it nothing was measured: single precision ends near 3e38.
LARGEST = 1e30
# Where channels outnumber the steps of the longest series by such a factor, axes are likely swapped.
MANY_CHANNELS = 2


@dataclass(frozen=True, kw_only=True)
class _Told:
    """One series as it was given."""

    moments: Float64[np.ndarray, " steps"]
    values: Float64[np.ndarray, "channels steps"]
    clock: Clock


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Series with the same channels.

    Attributes:
        series: in the order given; of a frame: in the order in which they first appear.
        channels: names, or numbers.
        names: of the series, or their numbers.
        clock: what their time stamps were given as.
    """

    series: tuple[Series, ...]
    channels: tuple[Any, ...]
    names: tuple[Any, ...]
    clock: Clock = "numbers"

    def rows(self, chosen: Int[np.ndarray, " chosen"]) -> Panel:
        """Return some of the series."""
        series, names = ([every[row] for row in chosen.tolist()] for every in (self.series, self.names))
        return replace(self, series=tuple(series), names=tuple(names))

    def require_observations(self) -> None:
        """Raise ValueError if nothing was observed in any series: there is nothing to learn from."""
        if not any(len(one.time) for one in self.series):
            raise ValueError(f"none of the {len(self.series)} series holds an observation")


def read_panel(X: Any, *, channels: Sequence[Any] | None = None) -> Panel:  # noqa: N803 (the name that scikit-learn gives it)
    """Read a collection of series.

    Args:
        X: in one of the forms above.
        channels: of the training panel, to which this one must conform; None for whatever there is.

    Raises:
        ValueError: for infinite or unreasonably large values, time stamps that are missing or not finite,
            what is no number, shapes that do not fit, unknown channels.
    """
    if hasattr(X, "columns"):
        series, known, names, clock = read_frame(X, channels, largest=LARGEST)
        return Panel(series=series, channels=known, names=names, clock=clock)
    X = np.asarray(X) if hasattr(X, "__array__") and not isinstance(X, np.ndarray) else X  # noqa: N806
    _require_collection(X)
    told = [_told(one, row) for row, one in enumerate(X)]
    width = len(told[0].values) if channels is None else len(channels)
    for row, one in enumerate(told):
        if len(one.values) != width:
            raise ValueError(
                f"series {row} has {len(one.values)} channels, "
                f"{'series 0' if channels is None else 'the training series'} had {width}"
            )
    if not width:
        raise ValueError("series 0 has no channels: one series is (channels, time)")
    _require_orientation(X, told)
    known = tuple(range(width)) if channels is None else tuple(channels)
    series = tuple(_checked(row, one, known) for row, one in enumerate(told))
    return Panel(series=series, channels=known, names=tuple(range(len(series))), clock=_clock(told))


def _require_collection(X: Any) -> None:  # noqa: N803
    """Raise ValueError for what is no collection of series."""
    if hasattr(X, "tocsr"):
        raise TypeError("sparse data was passed, but a dense array is needed: use X.toarray()")
    if isinstance(X, np.ndarray) and X.dtype != object and X.ndim not in (2, 3):
        raise ValueError(
            f"X has shape {X.shape}: an array of series is (series, channels, time), or (series, "
            "time) for one channel. Reshape your data"
        )
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 0 < len(X):
        raise ValueError(
            f"X has 0 feature(s) (shape={X.shape}) while a minimum of 1 is required: series have no steps"
        )
    if not isinstance(X, Sized) or isinstance(X, str | bytes | Mapping | Set):
        raise ValueError(
            f"X is of type {type(X).__name__}, no collection of series: make it a list or an array"
        )
    if len(X) == 0:
        raise ValueError("X holds no series: 0 sample(s)")


def _told(one: Any, row: int) -> _Told:
    if isinstance(one, tuple) and len(one) != 2:
        raise ValueError(
            f"series {row} is a tuple of {len(one)}: with time stamps, a series is a pair (time, values)"
        )
    stamps, one = one if isinstance(one, tuple) else (None, one)
    if hasattr(one, "index") and hasattr(one, "iloc"):
        raise ValueError(
            f"series {row} is a pandas object, whose rows would be taken as channels: pass the pair "
            "(one.index, one.to_numpy().T)"
        )
    values = read_values(one, f"series {row}")
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise ValueError(
            f"series {row} has shape {values.shape}: one series is (channels, time), or (time,) "
            "for one channel"
        )
    if stamps is None:
        return _Told(moments=np.arange(values.shape[1], dtype=np.float64), values=values, clock="numbers")
    read = read_stamps(stamps, f"series {row}, column 'time'")
    if read.ticks.shape != values.shape[1:]:
        raise ValueError(
            f"series {row}, column 'time': {read.ticks.size} time stamps for {values.shape[1]} steps"
        )
    return _Told(moments=read.moments(), values=values, clock=read.clock)


def _clock(told: Sequence[_Told]) -> Clock:
    """Return the kind of time stamps that all series share; one without steps may be of any."""
    clocks = {row: one.clock for row, one in enumerate(told) if len(one.moments)}
    first: Clock = next(iter(clocks.values()), "numbers")
    for row, clock in clocks.items():
        if clock != first:
            raise ValueError(f"series {row}, column 'time': holds {clock}, the series before it {first}")
    return first


def _require_orientation(X: Any, told: Sequence[_Told]) -> None:  # noqa: N803
    """Speak up where the form is likely another one: time among the channels, or axes that are swapped."""
    if any(isinstance(one, tuple) for one in X):
        return
    pairs = all(isinstance(one, list) and len(one) == 2 and np.ndim(one[0]) == 1 for one in X)
    if pairs and all(len(one.moments) > 1 and (np.diff(one.values[0]) > 0).all() for one in told):
        raise ValueError(
            "series 0 is a list of two whose first entry rises, as in every other series: if that is time, "
            "pass a tuple (time, values); if it is a channel, an array"
        )
    channels, longest = len(told[0].values), max(len(one.moments) for one in told)
    if channels > MANY_CHANNELS * longest:
        warnings.warn(
            f"X is read as (series, channels, time), with {channels} channels and at most {longest} steps: "
            "if it is (series, time, channels), swap its last two axes",
            stacklevel=4,
        )


def _checked(name: Any, one: _Told, channels: Sequence[Any]) -> Series:
    time, values = one.moments, one.values.T
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
