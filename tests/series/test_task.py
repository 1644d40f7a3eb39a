"""Series: both forms say the same, in whatever order observations come; statistics come from training
series only; padding tells nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcram.series.task import (
    LONGEST_GAP,
    EncodedSeries,
    Series,
    SeriesStatistics,
    SeriesTask,
    collate,
    compressed,
)
from torchcram.tasks.base import Task
from torchcram.types import Head

NAN = np.nan
HEAD = Head(name="kind", kind="classification", size=2, per="sequence")
# Integers: their means over few values are exact, so that duplicates can be compared exactly.
observations = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2), st.integers(-9, 9)), max_size=20)


def test_one_wrong_entry_in_a_thousand_does_not_widen_the_scale():
    values = np.concatenate([np.linspace(7.0, 7.8, 3000), [735.0]])
    fitted = SeriesStatistics.fit([Series.of_vectors(np.arange(3001.0), values[:, None])])
    assert fitted.mean[0] == pytest.approx(7.4, abs=0.01)
    assert fitted.std[0] == pytest.approx(0.23, abs=0.01)


def series(rows: list[tuple[float, int, float]]) -> Series:
    time, variable, value = np.array(rows, dtype=float).reshape(-1, 3).T
    return Series.of_observations(time, variable.astype(int), value, variables=3)


def assert_equal(one: Series, other: Series) -> None:
    np.testing.assert_array_equal(one.time, other.time)
    np.testing.assert_array_equal(one.values, other.values)


@given(rows=observations, seed=st.integers(0, 99))
def test_the_order_of_observations_does_not_matter(rows, seed):
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    assert_equal(series(shuffled), series(rows))


@given(rows=observations)
def test_both_forms_turn_into_each_other(rows):
    one = series(rows)
    step, variable = np.nonzero(~np.isnan(one.values))
    again = Series.of_observations(one.time[step], variable, one.values[step, variable], variables=3)
    assert_equal(again, one)
    assert_equal(Series.of_vectors(one.time, one.values), one)
    assert (np.diff(one.time) > 0).all()
    assert (~np.isnan(one.values)).any(1).all()
    assert {(t, v) for t, v, _ in rows} == set(zip(one.time[step].tolist(), variable.tolist(), strict=True))


def test_values_of_one_variable_at_one_moment_count_as_their_mean():
    one = series([(5.0, 1, 3.0), (2.0, 0, 7.0), (5.0, 1, 5.0), (5.0, 2, 1.0), (6.0, 0, NAN)])
    np.testing.assert_array_equal(one.time, [2.0, 5.0])
    np.testing.assert_array_equal(one.values, [[7.0, NAN, NAN], [NAN, 4.0, 1.0]])


def test_statistics_are_those_of_the_observed_values():
    one, other = series([(0, 0, 1.0), (2, 0, 3.0), (2, 1, 7.0)]), series([(10, 0, 5.0), (14, 1, 7.0)])
    found = SeriesStatistics.fit([one, other])
    np.testing.assert_allclose(found.mean, [3.0, 7.0, 0.0])
    np.testing.assert_allclose(found.std, [np.std([1.0, 3.0, 5.0]), 1.0, 1.0])
    assert found.observed.tolist() == [True, True, False]
    assert found.unit == 3.0


def test_a_constant_whose_mean_is_rounded_is_constant_all_the_same():
    found = SeriesStatistics.fit([series([(t, 0, 0.1) for t in range(7)])])
    assert found.std[0] == 1.0


def test_a_model_sees_standardised_values_flags_and_gaps():
    fitted = SeriesStatistics.fit([series([(0, 0, 1.0), (2, 0, 3.0), (2, 1, 7.0)])])
    seen = fitted.encode(series([(10, 0, 3.0), (11, 1, 8.0), (11, 2, 99.0)]), start=8.0)
    torch.testing.assert_close(
        seen.inputs, torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]])
    )
    torch.testing.assert_close(seen.gap, torch.tensor([1.0, 0.5]))
    assert fitted.encode(series([(10, 0, 3.0)])).gap.tolist() == [0.0]


def test_a_series_without_observations_is_one_step_in_which_nothing_was_seen():
    seen = SeriesStatistics.fit([series([(0, 0, 1.0)])]).encode(series([]))
    assert not seen.inputs.any()
    assert (tuple(seen.inputs.shape), seen.gap.tolist()) == ((1, 6), [0.0])


@given(unit=st.sampled_from([1e-9, 1.0, 3600.0, 1e12]))
def test_the_unit_of_time_does_not_matter(unit):
    rows = [(0, 0, 1.0), (1, 0, 2.0), (5, 1, 3.0)]
    plain, scaled = series(rows), series([(unit * t, v, x) for t, v, x in rows])
    ours, theirs = (SeriesStatistics.fit([one]).encode(one) for one in (plain, scaled))
    torch.testing.assert_close(ours.gap, theirs.gap)


def test_outliers_are_drawn_in_and_keep_their_order():
    values = np.array([-1e30, -4.0, -3.0, 0.5, 3.0, 3.001, 10.0, 1e30])
    seen = compressed(values)
    assert (np.diff(seen) > 0).all()
    np.testing.assert_array_equal(seen[2:5], values[2:5])
    assert np.abs(seen).max() < 75
    fitted = SeriesStatistics.fit([series([(0, 0, 1.0), (1, 0, 3.0)])])
    assert fitted.encode(series([(0, 0, 1e30), (1e30, 0, 1.0)])).gap.max() == LONGEST_GAP


def tasks() -> SeriesTask:
    encoded = [
        EncodedSeries(inputs=torch.full((steps, 2), float(steps)), gap=torch.ones(steps))
        for steps in (1, 4, 2)
    ]
    return SeriesTask(encoded, {"kind": torch.tensor([0, 1, 0])}, (HEAD,))


def test_a_batch_is_padded_with_zeros_at_the_end_and_keeps_rows_and_targets_together(seeded):
    task = tasks()
    assert isinstance(task, Task)
    batch = task.batch(50, generator=seeded(1))
    lengths = batch.mask.sum(1)
    assert set(lengths.tolist()) == {1, 2, 4}
    assert torch.equal(batch.inputs[:, 0, 0], lengths.float())
    assert torch.equal(batch.targets["kind"], (lengths == 4).long())
    assert not batch.inputs[~batch.mask].any()
    assert not batch.gap[~batch.mask].any()
    assert (batch.mask.long().diff(dim=1) <= 0).all()
    assert tasks().rows([1], last=3).gap.shape == (1, 3)


def test_series_are_drawn_as_often_as_their_weights_say(seeded):
    task = tasks()
    task.weights = torch.tensor([0.0, 3.0, 1.0])
    drawn = task.batch(4000, generator=seeded(1)).mask.sum(1)
    assert not (drawn == 1).any()
    # Five standard errors of a share of 3/4 over 4000 draws.
    assert abs(float((drawn == 4).float().mean()) - 0.75) < 5 * (0.75 * 0.25 / 4000) ** 0.5


def test_collating_more_series_changes_nothing_but_the_padding():
    one, long = (
        EncodedSeries(inputs=torch.randn(3, 2), gap=torch.rand(3)),
        EncodedSeries(inputs=torch.randn(9, 2), gap=torch.rand(9)),
    )
    alone, beside = collate([one]), collate([one, long])
    assert torch.equal(beside.inputs[0, :3], alone.inputs[0])
    assert beside.mask.sum(1).tolist() == [3, 9]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least one series"):
        SeriesTask([], {}, (HEAD,))
    with pytest.raises(ValueError, match="no training series"):
        SeriesStatistics.fit([])
    with pytest.raises(ValueError, match="target 'kind' has 1 entries for 3 series"):
        SeriesTask(tasks().series, {"kind": torch.tensor([0])}, (HEAD,))


def test_a_pool_brings_series_of_about_equal_length_together_and_favours_none():
    """Four batches drawn at once, one kept: lengths of a batch differ little, and every series is drawn as
    often as the others."""
    series = [
        EncodedSeries(inputs=torch.full((steps, 2), float(steps)), gap=torch.zeros(steps))
        for steps in range(1, 41)
    ]
    task = SeriesTask(series, {}, ()).drawn(pool=4)
    generator = torch.Generator().manual_seed(0)
    batches = [task.batch(16, generator=generator).mask.sum(1) for _ in range(500)]
    spread = torch.stack([(lengths.max() - lengths.min()).double() for lengths in batches]).mean()
    plain = torch.stack(
        [
            (m.max() - m.min()).double()
            for m in (
                SeriesTask(series, {}, ()).batch(16, generator=generator).mask.sum(1) for _ in range(100)
            )
        ]
    )
    assert spread < 0.5 * plain.mean()
    counts = torch.cat(batches).bincount(minlength=41)[1:].double()
    # A series comes 1.6 times in a pool, in one slice of it: the variance of a count is 440, its mean 200.
    # Five standard errors.
    assert (counts / counts.mean() - 1).abs().max() < 5 * 440**0.5 / 200


def test_hidden_variables_vanish_from_all_their_columns_in_training_alone():
    series = [EncodedSeries(inputs=torch.ones(50, 6), gap=torch.ones(50))] * 20
    task = SeriesTask(series, {}, (), variables=2, flags=False).drawn(hide=0.3)
    inputs = task.batch(20, generator=torch.Generator().manual_seed(0)).inputs
    blocks = inputs.unflatten(-1, (3, 2))
    assert (blocks == blocks[:, :, :1]).all()
    # 2,000 draws: five standard errors.
    assert abs(float((inputs == 0).double().mean()) - 0.3) < 5 * (0.21 / 2000) ** 0.5
    assert (task.rows([0]).inputs == 1).all()
    assert task.span == 50.0


def test_one_long_series_does_not_shrink_the_batches_of_the_others():
    """Fault 29: 12,000 steps among 200 series of 20 left 5 to every batch."""
    lengths = [20] * 200 + [12_000]
    series = [EncodedSeries(inputs=torch.zeros(steps, 2), gap=torch.ones(steps)) for steps in lengths]
    head = Head(name="y", kind="regression", size=1, per="sequence")
    task = SeriesTask(series, {"y": torch.zeros(201, 1)}, (head,), pool=8, most_tokens=65_536)
    batches = [task.batch(32, generator=torch.Generator().manual_seed(step)) for step in range(300)]
    assert max(batch.gap.numel() for batch in batches) <= 65_536
    sizes = [batch.size for batch in batches]
    assert set(sizes) == {5, 32}
    # About one pool in four holds it, and one batch in eight of those.
    assert sizes.count(5) < 30


def test_each_series_weighs_the_same_however_few_are_kept():
    """Of 3 series the long one may fill a batch alone: in the mean over batches each counts a third."""
    lengths = [2, 2, 40]
    series = [EncodedSeries(inputs=torch.zeros(steps, 2), gap=torch.ones(steps)) for steps in lengths]
    head = Head(name="y", kind="regression", size=1, per="sequence")
    target = torch.eye(3)[:, 2:]
    task = SeriesTask(series, {"y": target}, (head,), pool=4, most_tokens=80)
    draws = 4000
    mean = sum(
        float(task.batch(8, generator=torch.Generator().manual_seed(step)).targets["y"].mean())
        for step in range(draws)
    )
    # A batch holds two series at least where the long one is among them.
    assert abs(mean / draws - 1 / 3) < 5 * 0.5 / draws**0.5
