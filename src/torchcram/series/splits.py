"""Fixed splits of finite data into training, validation and test part, so that everybody judges on the same.

There are five of each kind, numbered from 0. The shuffles depend on the number and on how many there are to
split, on nothing else: not on the version of a library of splits, which is why they are written out here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

SPLITS = 5


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices of the entries in each part, rising; no entry is in two of them."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]


def stratified_split(
    label: Int[np.ndarray, " entries"],
    *,
    number: int,
    test_share: float = 0.2,
    validation_share: float = 0.16,
) -> Split:
    """Return one of the five random splits, with the same mix of labels in each part (up to rounding)."""
    generator = np.random.default_rng(check_number(number))
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for kind in np.unique(label):
        rows = generator.permutation(np.flatnonzero(label == kind))
        test = round(test_share * len(rows))
        validation = test + round(validation_share * len(rows))
        for part, chosen in zip(parts, (rows[validation:], rows[test:validation], rows[:test]), strict=True):
            part.extend(chosen.tolist())
    train, held_out, tested = (np.array(sorted(part), dtype=np.int64) for part in parts)
    return Split(train=train, validation=held_out, test=tested)


def leave_out_split(group: Int[np.ndarray, " entries"], *, number: int, validation_groups: int = 4) -> Split:
    """Return one of five splits by group (user, patient, site): nobody is in two parts, and each group is in
    the test part of exactly one split.

    Raises:
        ValueError: if there are too few groups.
    """
    groups = np.unique(group)
    if len(groups) < SPLITS + validation_groups:
        raise ValueError(
            f"{len(groups)} groups are too few for {SPLITS} splits with {validation_groups} "
            "groups for validation"
        )
    order = np.random.default_rng(SPLITS).permutation(groups)
    tested = order[check_number(number) :: SPLITS]
    others = np.random.default_rng(number).permutation(np.setdiff1d(order, tested))
    held_out, train = others[:validation_groups], others[validation_groups:]
    return Split(
        **{
            name: np.flatnonzero(np.isin(group, chosen))
            for name, chosen in (("train", train), ("validation", held_out), ("test", tested))
        }
    )


def held_out(
    strata: Int[np.ndarray, " series"],
    groups: np.ndarray | None,
    *,
    share: float,
    generator: np.random.RandomState,
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " held"]]:
    """Return the series to train on, and those held out for early stopping: about a share of each stratum,
    never all of it, and whole groups where there are any. Warn where too few are left to hold any out.

    Args:
        strata: class of each series.
        groups: whom each series comes from; None for somebody else each.
        share: of the series, or of the groups.
        generator: source of randomness.
    """
    held = (
        _held_rows(strata, share, generator)
        if groups is None
        else _held_groups(strata, groups, share, generator)
    )
    if not len(held):
        what = f"{len(strata)} series" if groups is None else f"{len(set(groups.tolist()))} groups"
        warnings.warn(f"{what} are too few to hold any out: early_stopping is ignored", stacklevel=5)
    return np.setdiff1d(np.arange(len(strata)), held), held


def _held_rows(
    strata: Int[np.ndarray, " series"], share: float, generator: np.random.RandomState
) -> Int[np.ndarray, " held"]:
    held: list[int] = []
    for kind in np.unique(strata):
        rows = generator.permutation(np.flatnonzero(strata == kind))
        held += rows[: min(round(share * len(rows)), len(rows) - 1)].tolist()
    return np.array(sorted(held), dtype=np.int64)


def _held_groups(
    strata: Int[np.ndarray, " series"], groups: np.ndarray, share: float, generator: np.random.RandomState
) -> Int[np.ndarray, " held"]:
    """Return the rows of the groups that come first in a random order, as many as hold about the share;
    a group without which a stratum would have nothing to train on is passed over.
    """
    code = np.unique(groups, return_inverse=True)[1]
    held = np.zeros(len(strata), dtype=bool)
    for group in generator.permutation(code.max() + 1):
        more = held | (code == group)
        if more.sum() > max(share * len(strata), (code == group).sum()) * 1.25:
            continue
        if set(strata[~more].tolist()) == set(strata.tolist()):
            held = more
    return np.flatnonzero(held)


def check_number(number: int) -> int:
    """Return the number of a split if there is such a one.

    Raises:
        ValueError: otherwise.
    """
    if not 0 <= number < SPLITS:
        raise ValueError(
            f"split {number} does not exist: there are {SPLITS}, numbered from 0 to {SPLITS - 1}"
        )
    return number
