"""Running statistics and carried values tell of the past alone, and are what a loop over the steps finds."""

import numpy as np
import pytest

from torchcram.series.history import FRESH, encode_carried, with_running_statistics
from torchcram.series.task import Series, SeriesStatistics

VARIABLES, STEPS = 3, 8
# Mean, least, greatest, number.
RUNNING = 4


def drawn(*, seed: int = 0, steps: int = STEPS) -> Series:
    generator = np.random.default_rng(seed)
    values = np.where(
        generator.random((steps, VARIABLES)) < 0.5, generator.normal(size=(steps, VARIABLES)), np.nan
    )
    values[:, 2] = np.nan
    return Series.of_vectors(generator.exponential(2.0, steps).cumsum(), values)


def test_running_statistics_are_those_of_the_values_so_far():
    series = drawn()
    blocks = with_running_statistics(series).values.reshape(len(series.time), 1 + RUNNING, VARIABLES)
    np.testing.assert_array_equal(blocks[:, 0], series.values)
    for step, variable in np.argwhere(~np.isnan(series.values)):
        past = series.values[: step + 1, variable]
        past = past[~np.isnan(past)]
        np.testing.assert_allclose(
            blocks[step, 1:, variable], [past.mean(), past.min(), past.max(), np.log1p(len(past))]
        )
    assert np.isnan(
        blocks[np.isnan(series.values).nonzero()[0], :, np.isnan(series.values).nonzero()[1]]
    ).all()


def test_a_carried_step_holds_the_latest_values_flags_and_freshness():
    series = drawn()
    statistics = SeriesStatistics.fit([series, drawn(seed=1)])
    plain, carried = (
        encode(series)
        for encode in (statistics.encode, lambda one: encode_carried(statistics, one, variables=VARIABLES))
    )
    values, seen = np.split(plain.inputs.numpy(), 2, 1)
    latest, flags, fresh = np.split(carried.inputs.numpy(), 3, 1)
    time = plain.gap.numpy().cumsum()
    np.testing.assert_array_equal(flags, seen)
    for variable in range(VARIABLES):
        for step in range(len(time)):
            past = np.flatnonzero(seen[: step + 1, variable])
            expected = (
                (values[past[-1], variable], 1 / (1 + (time[step] - time[past[-1]]) / FRESH))
                if len(past)
                else (0.0, 0.0)
            )
            assert (latest[step, variable], fresh[step, variable]) == pytest.approx(expected, abs=1e-6)
    assert fresh[:, :2].max() == 1.0
    np.testing.assert_array_equal(carried.gap, plain.gap)


def test_later_steps_change_nothing_before_them():
    series = drawn()
    cut = Series(time=series.time[:4], values=series.values[:4])
    np.testing.assert_array_equal(
        with_running_statistics(series).values[:4], with_running_statistics(cut).values
    )
    statistics = SeriesStatistics.fit([series])
    whole, part = (encode_carried(statistics, one, variables=VARIABLES).inputs for one in (series, cut))
    np.testing.assert_array_equal(whole[:4], part)


def test_a_series_without_observations_is_one_step_in_which_nothing_was_ever_seen():
    nothing = Series(time=np.empty(0), values=np.empty((0, VARIABLES)))
    longer = with_running_statistics(nothing)
    assert longer.values.shape == (0, VARIABLES * (1 + RUNNING))
    encoded = encode_carried(
        SeriesStatistics.fit([with_running_statistics(drawn())]), longer, variables=VARIABLES
    )
    assert encoded.inputs.shape == (1, VARIABLES * (1 + RUNNING + 2))
    assert not encoded.inputs.any()
