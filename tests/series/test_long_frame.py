"""A long frame says the same in pandas and in polars, and its rows are named when they cannot be right."""

import numpy as np
import pandas as pd
import pytest

from torchcram.series.panel import read_panel

ROWS = [("b", 3.0, "v", 1.0), ("a", 1.0, "w", 2.0), ("b", 1.0, "w", 4.0)]
FRAME = pd.DataFrame(ROWS, columns=["series", "time", "variable", "value"])


class PolarsColumn:
    """What a column of polars has, and no more."""

    def __init__(self, entries: list):
        self.entries = entries

    def to_list(self) -> list:
        return list(self.entries)

    def to_numpy(self) -> np.ndarray:
        return np.asarray(self.entries)


class PolarsFrame:
    """What a frame of polars has, and no more."""

    columns = tuple(FRAME.columns)

    def __getitem__(self, column: str) -> PolarsColumn:
        return PolarsColumn(FRAME[column].tolist())


def test_frames_of_pandas_and_polars_say_the_same():
    ours, theirs = read_panel(FRAME), read_panel(PolarsFrame())
    assert (ours.names, ours.channels) == (theirs.names, theirs.channels) == (("b", "a"), ("v", "w"))
    for one, other in zip(ours.series, theirs.series, strict=True):
        np.testing.assert_array_equal(one.time, other.time)
        np.testing.assert_array_equal(one.values, other.values)


def test_types_of_pandas_and_dates_are_read():
    typed = FRAME.astype({"time": "Int64", "value": "Float64", "series": "string"})
    np.testing.assert_array_equal(read_panel(typed).series[0].values, read_panel(FRAME).series[0].values)
    dated = FRAME.assign(time=pd.Timestamp("2024-02-29", tz="UTC") + pd.to_timedelta(FRAME["time"], unit="h"))
    for frame in (dated, dated.assign(time=dated["time"].astype(str))):
        panel = read_panel(frame)
        assert panel.clock == "dates"
        np.testing.assert_allclose(panel.series[0].time, [0.0, 7200.0])


@pytest.mark.parametrize(
    ("column", "entry", "message"),
    [
        ("series", None, "column 'series': row 1 is None; every observation needs a name"),
        ("variable", np.nan, "column 'variable': row 1 is nan"),
        ("value", "x", "column 'value': holds what is no number: x"),
        ("value", np.inf, "series 'a', column 'w': is inf"),
        ("time", None, "series 'a', column 'time': is missing; time stamps must be finite"),
        ("time", -np.inf, "series 'a', column 'time': is -inf"),
        ("time", "noon", "column 'time': holds what is no time"),
    ],
)
def test_a_row_that_cannot_be_right_is_named(column, entry, message):
    frame = FRAME.astype({column: object})
    frame.loc[1, column] = entry
    with pytest.raises(ValueError, match=message):
        read_panel(frame)


def test_a_date_that_is_missing_is_named():
    frame = FRAME.assign(time=pd.to_datetime(["2024-01-01", None, "2024-01-02"]))
    with pytest.raises(ValueError, match="series 'a', column 'time': is missing"):
        read_panel(frame)
