"""Time stamps of any kind, brought to one unit; and whether those of new series are in the unit of training.

Numbers keep their unit. Dates (NumPy's, pandas', Python's, with or without a time zone, or ISO 8601 strings)
and durations become seconds from the first stamp of their series. The origin is subtracted in whole ticks, so
stamps a nanosecond apart stay apart. So is that of whole numbers which float64 could not hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int, Integer, Shaped

from torchcram.series.task import Series
from torchcram.series.values import is_missing, read_values

Clock = Literal["numbers", "dates", "durations"]
# Series whose median gap differs from that of training by such a factor have another unit of time: units are
# a thousand apart, and collections of the same kind seldom more than ten.
OTHER_UNIT = 100.0
# So few gaps may all be as short, or as long, as one of training.
FEW_GAPS = 8
# Whole numbers from here on are rounded by float64.
EXACT = 2**53
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12, "fs": 1e-15, "as": 1e-18}


@dataclass(frozen=True, kw_only=True)
class Stamps:
    """Time stamps, exact: of one series, or of the rows of a frame.

    Attributes:
        ticks: whole or real numbers.
        absent: which stamps are missing; their ticks say nothing.
        clock: what was given.
        unit: seconds of a tick of dates and durations, 1 of numbers.
    """

    ticks: Shaped[np.ndarray, " stamps"]
    absent: Bool[np.ndarray, " stamps"]
    clock: Clock
    unit: float = 1.0

    def moments(self, rows: Int[np.ndarray, " rows"] | slice = slice(None)) -> Float64[np.ndarray, " rows"]:
        """Return the moments of the rows of one series, NaN where a stamp is missing."""
        ticks, absent = self.ticks[rows], self.absent[rows]
        known = ticks[~absent]
        whole = ticks.dtype.kind in "iu"
        large = whole and len(known) > 0 and max(abs(int(known.min())), abs(int(known.max()))) > EXACT
        if len(known) and (self.clock != "numbers" or large):
            ticks = ticks - known.min()
        return np.where(absent, np.nan, ticks.astype(np.float64) * self.unit)


def read_stamps(stamps: Any, place: str) -> Stamps:
    """Read time stamps, one or many.

    Raises:
        ValueError: for what is no time; the message begins with ``place``.
    """
    stamps = _without_zone(stamps)
    hidden = np.ma.getmaskarray(stamps) if isinstance(stamps, np.ma.MaskedArray) else None
    try:
        data = np.atleast_1d(np.ma.getdata(stamps) if hidden is not None else np.asarray(stamps))
    except (TypeError, ValueError):
        raise ValueError(f"{place}: holds what is no time: {str(stamps)[:60]}") from None
    data = _of_calendar(data, place) if data.dtype.kind in "OUST" else data
    absent = np.zeros(data.shape, dtype=bool) if hidden is None else hidden
    if data.dtype.kind in "mM":
        clock: Clock = "dates" if data.dtype.kind == "M" else "durations"
        ticks, unit = _ticks(data)
        return Stamps(ticks=ticks, absent=absent | np.isnat(data), clock=clock, unit=unit)
    if data.dtype.kind in "iu":
        return Stamps(ticks=data, absent=absent, clock="numbers")
    numbers = read_values(data, place)
    return Stamps(ticks=numbers, absent=absent | np.isnan(numbers), clock="numbers")


def _without_zone(stamps: Any) -> Any:
    """Return a pandas column or index of dates with a time zone as the same moments in UTC, without one."""
    if getattr(getattr(stamps, "dtype", None), "tz", None) is None:
        return stamps
    return (stamps.dt if hasattr(stamps, "dt") else stamps).tz_convert(None)


def _ticks(data: Shaped[np.ndarray, " stamps"]) -> tuple[Integer[np.ndarray, " stamps"], float]:
    """Return dates or durations as whole ticks, and the seconds of one."""
    name, count = np.datetime_data(data.dtype)
    unit = name if name in SECONDS else "s"
    if (name, count) != (unit, 1):
        data = data.astype(f"{data.dtype.kind}8[{unit}]")
    return data.view(np.int64), SECONDS[unit]


def _of_calendar(data: Shaped[np.ndarray, " stamps"], place: str) -> Shaped[np.ndarray, " stamps"]:
    """Read Python's and pandas' dates and durations, and ISO 8601 strings; numbers are left as they are."""
    known = [entry for entry in data.ravel() if not is_missing(entry)]
    if not any(isinstance(entry, str | date | timedelta | np.datetime64 | np.timedelta64) for entry in known):
        return data
    try:
        entries = [None if is_missing(entry) else _naive(entry) for entry in data.ravel()]
        return np.array(entries, dtype=_unit_of(entries)).reshape(data.shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: holds what is no time, or times of several kinds: {error}") from None


def _naive(entry: Any) -> Any:
    """Return a date or duration that NumPy reads: the moment in UTC where it has a time zone."""
    entry = datetime.fromisoformat(entry) if isinstance(entry, str) else entry
    zoned = getattr(entry, "tzinfo", None) is not None
    if hasattr(entry, "asm8"):
        return (entry.tz_convert(None) if zoned else entry).asm8
    return entry.astimezone(UTC).replace(tzinfo=None) if zoned else entry


def _unit_of(entries: Sequence[Any]) -> str:
    kinds = {
        "m8" if isinstance(entry, timedelta | np.timedelta64) else "M8"
        for entry in entries
        if entry is not None
    }
    if len(kinds) > 1:
        raise ValueError("dates beside durations")
    fine = any(isinstance(entry, np.datetime64 | np.timedelta64) for entry in entries)
    return f"{kinds.pop()}[{'ns' if fine else 'us'}]"


@dataclass(frozen=True, kw_only=True)
class TimeScale:
    """The unit of time of the training series.

    Attributes:
        clock: kind of their time stamps.
        median, shortest, longest: of their gaps; all 0 where no series had two steps.
    """

    clock: Clock
    median: float
    shortest: float
    longest: float

    @classmethod
    def of(cls, series: Sequence[Series], clock: Clock) -> TimeScale:
        """Measure training series."""
        gaps = _gaps(series)
        if not len(gaps):
            return cls(clock=clock, median=0.0, shortest=0.0, longest=0.0)
        return cls(clock=clock, median=float(np.median(gaps)), shortest=gaps.min(), longest=gaps.max())

    def check(self, series: Sequence[Series], clock: Clock) -> None:
        """Warn, once, if the gaps of series are those of another unit.

        Raises:
            ValueError: if the stamps are of another kind than in training.
        """
        if clock != self.clock:
            raise ValueError(
                f"the time stamps are {clock}, those of training were {self.clock}: give the same"
            )
        gaps = _gaps(series)
        if not len(gaps) or not self.median:
            return
        ratio = float(np.median(gaps)) / self.median
        seen = len(gaps) < FEW_GAPS and self.shortest <= gaps.min() and gaps.max() <= self.longest
        if not seen and not 1 / OTHER_UNIT < ratio < OTHER_UNIT:
            warnings.warn(
                f"column 'time': the median gap is {ratio:.2g} times that of training: are the time stamps "
                "in another unit?",
                stacklevel=5,
            )


def _gaps(series: Sequence[Series]) -> Float64[np.ndarray, " gaps"]:
    return np.concatenate([np.diff(one.time) for one in series] or [np.empty(0)])
