"""Every form of a panel says the same, and what cannot be right is named by series and column."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from torchcram.series.panel import Panel, read_panel

NAN, INF = np.nan, np.inf
CUBE = np.array([[[1.0, NAN, 3.0], [4.0, NAN, NAN]], [[7.0, 8.0, 9.0], [NAN, NAN, 12.0]]])


def assert_same(one: Panel, other: Panel) -> None:
    assert len(one.series) == len(other.series)
    for ours, theirs in zip(one.series, other.series, strict=True):
        np.testing.assert_array_equal(ours.time, theirs.time)
        np.testing.assert_array_equal(ours.values, theirs.values)


def test_arrays_lists_and_pairs_say_the_same():
    cube = read_panel(CUBE)
    assert (cube.channels, cube.names) == ((0, 1), (0, 1))
    np.testing.assert_array_equal(cube.series[0].time, [0.0, 2.0])
    np.testing.assert_array_equal(cube.series[0].values, [[1.0, 4.0], [3.0, NAN]])
    assert_same(read_panel(list(CUBE)), cube)
    assert_same(read_panel([values.tolist() for values in CUBE]), cube)
    assert_same(read_panel([(np.arange(3), values) for values in CUBE]), cube)
    assert_same(read_panel(np.pad(CUBE, [(0, 0), (0, 0), (0, 5)], constant_values=NAN)), cube)
    assert_same(read_panel(CUBE[:, 0]), read_panel(CUBE[:, :1]))


def test_a_long_frame_says_the_same():
    rows = [(f"p{s}", t, f"v{c}", CUBE[s, c, t]) for s in range(2) for c in range(2) for t in range(3)]
    frame = pd.DataFrame(rows, columns=["series", "time", "variable", "value"])
    found = read_panel(frame)
    assert (found.channels, found.names) == (("v0", "v1"), ("p0", "p1"))
    assert_same(found, read_panel(CUBE))
    assert read_panel(frame[::-1]).names == ("p1", "p0")
    with pytest.raises(ValueError, match=r"series 'p0', column 'v1': no training series had this variable"):
        read_panel(frame, channels=("v0",))
    with pytest.raises(ValueError, match=r"no column 'variable' \(did you mean 'variabel'"):
        read_panel(frame.rename(columns={"variable": "variabel"}))
    for column, wrong, place in (("value", INF, "v0"), ("time", NAN, "time")):
        broken = frame.astype({"time": float}).copy()
        broken.loc[6, column] = wrong
        with pytest.raises(ValueError, match=f"series 'p1', column '{place}'"):
            read_panel(broken)


@given(seed=st.integers(0, 99), steps=st.integers(0, 9))
def test_the_order_of_steps_does_not_matter(seed, steps):
    generator = np.random.default_rng(seed)
    time, values = generator.integers(0, 6, steps).astype(float), generator.normal(size=(2, steps))
    order = generator.permutation(steps)
    assert_same(read_panel([(time[order], values[:, order])]), read_panel([(time, values)]))


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        (
            [(np.arange(2), np.array([[1.0, INF]]))],
            r"series 0, column 0: step 1 is inf; values must be finite",
        ),
        ([np.ones((2, 3)), np.array([[1.0, 2.0], [3.0, -1e31]])], r"series 1, column 1: step 1 is -1e\+31"),
        (
            [([0.0, NAN], np.ones((1, 2)))],
            r"series 0, column 'time': step 1 is nan; time stamps must be finite",
        ),
        ([([0.0], np.ones((1, 2)))], r"series 0, column 'time': 1 time stamps for 2 steps"),
        ([np.ones((2, 3)), np.ones((1, 3))], r"series 1 has 1 channels, series 0 had 2"),
        ([["a", "b"]], r"series 0: holds what is no number"),
        (np.ones((2, 2, 2, 2)), r"X has shape \(2, 2, 2, 2\)"),
        (np.ones((0, 1, 3)), "X holds no series"),
        ([(1, 2, 3)], r"series 0 is a tuple of 3"),
    ],
)
def test_what_cannot_be_right_names_series_and_column(panel, message):
    with pytest.raises(ValueError, match=message):
        read_panel(panel)


def test_channels_must_be_those_of_training():
    with pytest.raises(ValueError, match="series 0 has 2 channels, the training series had 3"):
        read_panel(CUBE, channels=(0, 1, 2))


def test_time_stamps_of_steps_without_observations_do_not_count():
    found = read_panel([(np.array([1.0, NAN]), np.array([[5.0, NAN]]))])
    assert found.series[0].time.tolist() == [1.0]


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        ((values for values in CUBE), "X is of type generator, no collection of series"),
        ({"a": CUBE[0]}, "X is of type dict"),
        (None, "X is of type NoneType"),
        (np.ones((2, 0, 3)), "series 0 has no channels"),
        (np.ones((2, 0)), r"X has 0 feature\(s\) \(shape=\(2, 0\)\)"),
        ([pd.DataFrame({"x": [1.0, 2.0]})], r"series 0 is a pandas object, .*pass the pair \(one.index"),
        ([np.array([[1j, 2.0]])], "series 0: holds what is complex"),
        ([np.array(["2024-01-01", "2024-01-02"], dtype="M8[D]")], "series 0: holds what is no number"),
        ([([0.0, 1.0], [["1", "2"]])], "series 0: holds what is no number"),
        (
            [(np.array(["2024-01-01", "NaT"], dtype="M8[D]"), np.ones((1, 2)))],
            "series 0, column 'time': step 1 is nan; time stamps must be finite",
        ),
        (
            [
                ([0.0, 1.0], np.ones((1, 2))),
                (np.array(["2024-01-01", "2024-01-02"], "M8[D]"), np.ones((1, 2))),
            ],
            "series 1, column 'time': holds dates, the series before it numbers",
        ),
        ([[[0.0, 1.5, 2.0], [5.0, 3.0, 4.0]]] * 3, r"pass a tuple \(time, values\); if it is a channel"),
    ],
)
def test_what_would_be_misread_is_an_error(panel, message):
    with pytest.raises(ValueError, match=message):
        read_panel(panel)


def test_what_becomes_an_array_is_one():
    assert_same(read_panel(torch.from_numpy(CUBE)), read_panel(CUBE))


def test_sparse_matrices_are_refused():
    with pytest.raises(TypeError, match="sparse data was passed"):
        read_panel(csr_array(np.eye(3)))


def test_what_a_masked_array_hides_is_missing():
    hidden = np.ma.masked_array(CUBE, mask=np.isnan(CUBE), fill_value=-999.0)
    assert_same(read_panel(hidden), read_panel(CUBE))
    assert_same(read_panel(list(hidden)), read_panel(CUBE))


def test_swapped_axes_are_told_where_channels_far_outnumber_steps():
    with pytest.warns(
        UserWarning, match=r"with 12 channels and at most 3 steps: if it is \(series, time, channels\)"
    ):
        read_panel(np.ones((4, 12, 3)))
    # With time stamps there is no doubt, and nor is there with as many steps as channels.
    read_panel([(np.arange(3), np.ones((12, 3)))])
    read_panel(np.ones((4, 12, 12)))


def test_a_panel_of_missing_values_has_nothing_to_teach():
    with pytest.raises(ValueError, match="none of the 2 series holds an observation"):
        read_panel(np.full((2, 1, 3), NAN)).require_observations()
    read_panel(CUBE).require_observations()
