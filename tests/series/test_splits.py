"""Splits are fixed, disjoint, complete, stratified or by group."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchcram.series.splits import SPLITS, held_out, leave_out_split, stratified_split


def parts(split) -> list[np.ndarray]:
    return [split.train, split.validation, split.test]


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=3), number=st.integers(0, SPLITS - 1))
def test_every_entry_is_in_one_part_and_the_mix_of_labels_is_that_of_all(counts, number):
    label = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    found = parts(stratified_split(label, number=number))
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(len(label)))
    for part, share in zip(found, (0.64, 0.16, 0.2), strict=True):
        for kind, count in enumerate(counts):
            assert abs((label[part] == kind).sum() - share * count) <= 1.0


def test_splits_are_the_same_for_everybody_and_differ_from_each_other():
    label = np.arange(50) % 2
    tested = [stratified_split(label, number=number).test.tolist() for number in range(SPLITS)]
    assert tested[0] == [5, 8, 9, 20, 22, 29, 38, 39, 41, 48]
    assert len({tuple(one) for one in tested}) == SPLITS


def test_groups_are_never_divided_and_each_is_tested_once():
    group = np.repeat(np.arange(30), np.arange(1, 31))
    tested = []
    for number in range(SPLITS):
        split = leave_out_split(group, number=number)
        np.testing.assert_array_equal(np.sort(np.concatenate(parts(split))), np.arange(len(group)))
        users = [set(group[part].tolist()) for part in parts(split)]
        assert [len(one) for one in users] == [20, 4, 6]
        assert not (users[0] & users[1] or users[0] & users[2] or users[1] & users[2])
        tested += sorted(users[2])
    assert sorted(tested) == list(range(30))


def test_impossible_splits_are_refused():
    with pytest.raises(ValueError, match="split 5 does not exist: there are 5, numbered from 0 to 4"):
        stratified_split(np.zeros(10, dtype=int), number=5)
    with pytest.raises(ValueError, match="3 groups are too few"):
        leave_out_split(np.arange(3), number=0)


def random_state() -> np.random.RandomState:
    return np.random.RandomState(0)


def test_a_share_of_each_stratum_is_held_out_and_never_all_of_it():
    strata = np.array([0] * 40 + [1] * 10 + [2])
    train, held = held_out(strata, None, share=0.2, generator=random_state())
    assert np.bincount(strata[held], minlength=3).tolist() == [8, 2, 0]
    assert sorted([*train, *held]) == list(range(51))


def test_groups_are_held_out_whole_and_no_stratum_loses_all_its_groups():
    groups = np.repeat(np.arange(10), 6)
    strata = (groups == 3).astype(np.int64)
    for seed in range(20):
        generator = np.random.RandomState(seed)
        train, held = held_out(strata, groups, share=0.2, generator=generator)
        assert len(held) == 12
        assert set(groups[train]) & set(groups[held]) == set()
        assert 3 in groups[train]


@pytest.mark.parametrize(("strata", "groups"), [([0, 1], None), ([0, 1, 0, 1], ["a"] * 4)])
def test_too_few_to_hold_any_out_are_told(strata, groups):
    with pytest.warns(UserWarning, match="are too few to hold any out: early_stopping is ignored"):
        train, held = held_out(
            np.array(strata),
            None if groups is None else np.array(groups),
            share=0.15,
            generator=random_state(),
        )
    assert (len(train), len(held)) == (len(strata), 0)
