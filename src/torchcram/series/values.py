"""What people call numbers, read as float64: NaN is missing, and what is no number is refused by its place.

Missing are NaN, None, pandas' NA and NaT, and what a masked array hides. Refused are strings (also those that
spell a number), dates, durations and complex numbers, all of which NumPy would cast without a word.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

# Of pandas, which need not be installed.
MISSING = ("NAType", "NaTType")
REAL_KINDS = "fiub"


def read_values(values: Any, place: str) -> Float64[np.ndarray, "..."]:
    """Return numbers in any form as float64, NaN where they are missing.

    Raises:
        ValueError: for what is no real number, or is ragged; the message begins with ``place``.
        TypeError: for objects that are no numbers at all, likewise.
    """
    try:
        known = np.ma.asanyarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: holds what is no number: {str(values)[:60]}") from None
    hidden = np.ma.getmaskarray(known)
    data = np.ma.getdata(known)
    if data.dtype.kind in "mM":
        raise ValueError(f"{place}: holds what is no number: {str(data.ravel()[:1])[:60]}")
    if data.dtype.kind not in REAL_KINDS:
        data = _of_objects(data, place)
    return np.where(hidden, np.nan, data.astype(np.float64))


def is_missing(value: Any) -> bool:
    """Return whether an entry is None, NaN, NaT or NA."""
    if value is None or type(value).__name__ in MISSING:
        return True
    return isinstance(value, float | np.floating | np.datetime64 | np.timedelta64) and bool(value != value)


def missing(entries: np.ndarray) -> Bool[np.ndarray, "..."]:
    """Return which entries of an array of any type are missing."""
    if entries.dtype.kind in "fcmM":
        return entries != entries
    if entries.dtype.kind != "O":
        return np.zeros(entries.shape, dtype=bool)
    return np.array([is_missing(entry) for entry in entries.ravel()], dtype=bool).reshape(entries.shape)


def _of_objects(data: np.ndarray, place: str) -> Float64[np.ndarray, "..."]:
    """Read entries of any type one by one."""
    entries = data.astype(object).ravel()
    numbers = np.full(len(entries), np.nan)
    for row, entry in enumerate(entries):
        if is_missing(entry):
            continue
        if isinstance(entry, complex | np.complexfloating):
            raise ValueError(f"{place}: holds what is complex: {entry}. Complex data not supported")
        if isinstance(entry, str | bytes | date | timedelta):
            raise ValueError(f"{place}: holds what is no number: {str(entry)[:60]}")
        if not hasattr(entry, "__float__"):
            advice = "an argument must be neither a string nor an object, but a number"
            raise TypeError(f"{place}: holds what is no number: {str(entry)[:60]}; {advice}")
        try:
            numbers[row] = float(entry)
        except (TypeError, ValueError):
            raise ValueError(f"{place}: holds what is no number: {str(entry)[:60]}") from None
    return numbers.reshape(data.shape)
