"""Time stamps of every kind say the same moments, and another unit than that of training is noticed."""

import warnings
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from torchcram.series.task import Series
from torchcram.series.times import TimeScale, read_stamps

HOURS = [0.0, 1.0, 3.0]
DATES = [datetime(2024, 2, 28, 23) + timedelta(hours=hours) for hours in HOURS]
TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    "given",
    [
        DATES,
        np.array(DATES, dtype="M8[ns]"),
        np.array(DATES, dtype="M8[s]"),
        np.array(DATES, dtype="M8[h]"),
        [moment.isoformat() for moment in DATES],
        np.array([moment.isoformat() for moment in DATES]),
        [moment.replace(tzinfo=UTC).astimezone(TOKYO) for moment in DATES],
        pd.DatetimeIndex(DATES),
        pd.DatetimeIndex(DATES).tz_localize("Europe/Vienna"),
        pd.Series(pd.DatetimeIndex(DATES).tz_localize("UTC")),
        [pd.Timestamp(moment, tz="UTC") for moment in DATES],
    ],
)
def test_dates_of_every_kind_are_seconds_from_the_first(given):
    read = read_stamps(given, "here")
    assert read.clock == "dates"
    np.testing.assert_allclose(read.moments(), np.multiply(HOURS, 3600.0))


def test_days_and_durations_are_seconds_too():
    np.testing.assert_allclose(
        read_stamps([date(2024, 2, 28), date(2024, 3, 1)], "").moments(), [0.0, 172800.0]
    )
    for given in ([timedelta(hours=hours) for hours in HOURS], pd.to_timedelta(HOURS, unit="h")):
        read = read_stamps(given, "")
        assert read.clock == "durations"
        np.testing.assert_allclose(read.moments(), np.multiply(HOURS, 3600.0))


def test_stamps_a_nanosecond_apart_stay_apart():
    ticks = 1_700_000_000_000_000_000 + np.arange(3)
    np.testing.assert_allclose(read_stamps(ticks.astype("M8[ns]"), "").moments(), [0.0, 1e-9, 2e-9])
    np.testing.assert_array_equal(read_stamps(ticks, "").moments(), [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(read_stamps(ticks.astype(np.uint64), "").moments(), [0.0, 1.0, 2.0])


def test_numbers_stay_what_they_are():
    for given in ([5, 7], [5.0, 7.0], np.float32([5, 7])):
        read = read_stamps(given, "")
        assert (read.clock, read.moments().tolist()) == ("numbers", [5.0, 7.0])


@pytest.mark.parametrize(
    "given",
    [
        [DATES[0], pd.NaT],
        np.array(["2024-01-01", "NaT"], dtype="M8[ns]"),
        [DATES[0], None],
        ["2024-01-01", None],
        [1.0, None],
        np.ma.masked_array([1, 2], mask=[False, True]),
    ],
)
def test_what_is_missing_is_no_moment(given):
    assert np.isnan(read_stamps(given, "").moments()).tolist() == [False, True]


@pytest.mark.parametrize(
    "given",
    [
        ["soon"],
        [DATES[0], timedelta(1)],
        [1j],
        [DATES[0], 3.0],
        [DATES[0], DATES[0].replace(tzinfo=UTC), "x"],
    ],
)
def test_what_is_no_time_is_refused_by_its_place(given):
    with pytest.raises(ValueError, match="series 2: holds what is"):
        read_stamps(given, "series 2")


def regular(gap: float, steps: int = 20) -> Series:
    return Series(time=np.arange(steps) * gap, values=np.ones((steps, 1)))


@pytest.mark.parametrize(("gap", "warned"), [(1e-3, True), (1e3, True), (0.05, False), (20.0, False)])
def test_another_unit_is_noticed_from_a_hundred_times_on(gap, warned):
    scale = TimeScale.of([regular(1.0)] * 3, "numbers")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        scale.check([regular(gap)] * 5, "numbers")
    assert len(told) == warned


def test_few_gaps_as_short_as_some_of_training_are_no_other_unit():
    """Two observations an instant apart, where training had such among hourly ones."""
    close = Series(time=np.array([0.0, 1e-4, 1.0]), values=np.ones((3, 1)))
    TimeScale.of([regular(1.0), close], "numbers").check(
        [Series(time=np.array([0.0, 2e-4]), values=np.ones((2, 1)))], "numbers"
    )
    with pytest.warns(UserWarning, match="another unit"):
        TimeScale.of([regular(1.0)], "numbers").check([regular(1e-4, steps=2)], "numbers")


def test_without_gaps_there_is_nothing_to_compare():
    TimeScale.of([regular(1.0, steps=1)], "numbers").check([regular(1e9)], "numbers")
    TimeScale.of([regular(1.0)], "numbers").check([regular(1.0, steps=1)], "numbers")


def test_another_kind_of_stamps_is_an_error():
    with pytest.raises(ValueError, match="the time stamps are dates, those of training were numbers"):
        TimeScale.of([regular(1.0)], "numbers").check([regular(1.0)], "dates")
