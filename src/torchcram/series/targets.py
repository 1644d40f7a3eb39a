"""Targets of series: one a series, in the order of the series, or an error that names the first wrong one.

Beside a frame, a pandas Series or frame of targets is looked up by the names of the series, for fitting and
for scoring alike.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from torchcram.series.panel import Panel
from torchcram.series.values import missing, read_values
from torchcram.strict import optional


def aligned(y: Any, panel: Panel, X: Any, *, name: str = "y") -> Shaped[np.ndarray, "series ..."]:  # noqa: N803
    """Return one target a series, or one row of them.

    Args:
        y: in any form; of pandas: looked up by name if ``X`` is a frame.
        panel: the series.
        X: what the panel was read from.
        name: what messages call the targets.

    Raises:
        ValueError: if a series has no target, or several, or there are other numbers of both.
    """
    if y is None:
        raise ValueError(f"this requires {name} to be passed, but the target {name} is None")
    if hasattr(X, "columns") and hasattr(y, "index") and hasattr(y, "loc"):
        y = _looked_up(y, panel, name)
    y = np.asarray(y) if hasattr(y, "__array__") and not isinstance(y, np.ndarray) else y
    if not hasattr(y, "__len__") or isinstance(y, str | bytes | dict | set):
        raise ValueError(
            f"{name} is of type {type(y).__name__}: a list or an array of one entry a series is needed"
        )
    entries = np.asarray(y)
    if isinstance(y, np.ma.MaskedArray):
        entries = np.ma.getdata(y).astype(object)
        entries[np.ma.getmaskarray(y)] = None
    elif isinstance(y, list) and entries.dtype.kind in "US":
        # NumPy would spell numbers beside text.
        entries = np.asarray(y, dtype=object)
    if len(entries) != len(panel.series):
        raise ValueError(f"{name} has {len(entries)} entries for {len(panel.series)} series")
    for place in np.argwhere(missing(entries))[:1]:
        entry = entries[tuple(place)]
        raise ValueError(
            f"series {panel.names[place[0]]!r}, column {name!r}: is {entry}; none may be missing"
        )
    return entries


def classes_of(y: Any, panel: Panel, X: Any) -> Shaped[np.ndarray, " series"]:  # noqa: N803
    """Return the class of each series.

    Raises:
        ValueError: see :func:`aligned`; for more than one class a series, for classes of several types, and
            for numbers that are no classes.
    """
    multiclass, validation = (
        optional(f"sklearn.utils.{name}", extra="sklearn") for name in ("multiclass", "validation")
    )
    label = aligned(y, panel, X)
    if label.ndim == 2 and label.shape[1] == 1:
        label = validation.column_or_1d(label, warn=True)
    if label.ndim != 1:
        raise ValueError(f"y has shape {label.shape}: one class a series is needed")
    kinds = sorted({"text" if isinstance(entry, str) else "numbers" for entry in label.tolist()})
    if len(kinds) > 1:
        raise ValueError("y holds text beside numbers: make all classes text, or all numbers")
    multiclass.check_classification_targets(label)
    return label.astype(str) if label.dtype == object and kinds == ["text"] else label


def codes_of(
    label: Shaped[np.ndarray, " series"], classes: Shaped[np.ndarray, " classes"], panel: Panel
) -> Int64[np.ndarray, " series"]:
    """Return the place of each series' class among known ones.

    Raises:
        ValueError: for a class that is not among them.
    """
    code = np.minimum(np.searchsorted(classes, label), len(classes) - 1)
    for row in np.flatnonzero(classes[code] != label)[:1]:
        name, unknown = panel.names[row], label.tolist()[row]
        raise ValueError(f"series {name!r}, column 'y': no training series had the class {unknown!r}")
    return code.astype(np.int64)


def numbers_of(y: Any, panel: Panel, X: Any) -> Float64[np.ndarray, "series ..."]:  # noqa: N803
    """Return the number of each series, or its numbers.

    Raises:
        ValueError: see :func:`aligned`; for what is no finite number.
    """
    target = read_values(aligned(y, panel, X), "column 'y'")
    for place in np.argwhere(~np.isfinite(target))[:1]:
        raise ValueError(
            f"series {panel.names[place[0]]!r}, column 'y': is {target[tuple(place)]}; targets must be finite"
        )
    if target.ndim > 2:
        raise ValueError(f"y has shape {target.shape}: a number a series, or a row of numbers, is needed")
    return target


def _looked_up(y: Any, panel: Panel, name: str) -> Any:
    """Return the entries of a pandas object in the order of the series."""
    known = set(y.index)
    for series in panel.names:
        if series not in known:
            raise ValueError(
                f"series {series!r} has no entry in {name}, which is looked up by the names of the series"
            )
    if not y.index.is_unique:
        twice = y.index[y.index.duplicated()][0]
        raise ValueError(f"series {twice!r} has several entries in {name}: one a series is needed")
    here = set(panel.names)
    extra = [entry for entry in y.index if entry not in here]
    if extra:
        warnings.warn(
            f"{len(extra)} series of {name}, the first is {extra[0]!r}, have no row in the frame: they are "
            "left out",
            stacklevel=5,
        )
    return y.loc[list(panel.names)]
