"""Targets belong to their series, or an error names the first that does not."""

import numpy as np
import pandas as pd
import pytest

from torchcram.series.panel import read_panel
from torchcram.series.targets import aligned, classes_of, codes_of, numbers_of

FRAME = pd.DataFrame(
    {"series": ["b", "a", "b"], "time": [0, 1, 2], "variable": "x", "value": [1.0, 2.0, 3.0]}
)
NAMED, PLAIN = read_panel(FRAME), read_panel(np.ones((2, 1, 4)))


def test_pandas_beside_a_frame_is_looked_up_by_name_and_all_else_goes_by_order():
    y = pd.Series([1, 2], index=["a", "b"])
    assert aligned(y, NAMED, FRAME).tolist() == [2, 1]
    assert aligned(y.to_numpy(), NAMED, FRAME).tolist() == [1, 2]
    assert aligned(y, PLAIN, np.ones((2, 1, 4))).tolist() == [1, 2]


def test_series_that_are_in_the_targets_alone_are_told():
    y = pd.Series([1, 2, 3, 4], index=["a", "z", "b", "y"])
    with pytest.warns(UserWarning, match="2 series of y, the first is 'z', have no row in the frame"):
        assert aligned(y, NAMED, FRAME).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        ([1], "y has 1 entries for 2 series"),
        ((one for one in (1, 2)), "y is of type generator"),
        ({"a": 1, "b": 2}, "y is of type dict"),
        (["x", None], "series 1, column 'y': is None; none may be missing"),
        ([1.0, np.nan], "series 1, column 'y': is nan"),
        (pd.array(["x", None], dtype="string"), "series 1, column 'y': is <NA>"),
        (np.ma.masked_array([1, 2], mask=[True, False]), "series 0, column 'y': is None"),
    ],
)
def test_targets_that_are_missing_are_named(y, message):
    for read in (classes_of, numbers_of):
        with pytest.raises(ValueError, match=message):
            read(y, PLAIN, None)


def test_names_must_be_there_once():
    with pytest.raises(ValueError, match="series 'b' has no entry in y"):
        aligned(pd.Series([1, 2], index=["a", "c"]), NAMED, FRAME)
    with pytest.raises(ValueError, match="series 'a' has several entries in groups"):
        aligned(pd.Series([1, 2, 3], index=["a", "b", "a"]), NAMED, FRAME, name="groups")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.1, 0.7], "Unknown label type: continuous"),
        (["x", 3], "y holds text beside numbers"),
        (np.ones((2, 2)), r"y has shape \(2, 2\): one class a series"),
    ],
)
def test_what_is_no_class_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        classes_of(y, PLAIN, None)


def test_classes_may_be_numbers_or_text_in_any_container():
    assert classes_of([2, 1], PLAIN, None).tolist() == [2, 1]
    assert classes_of([True, False], PLAIN, None).tolist() == [True, False]
    for y in (["x", "y"], np.array(["x", "y"], dtype=object), pd.Categorical(["x", "y"])):
        assert classes_of(y, PLAIN, None).tolist() == ["x", "y"]
    with pytest.warns(UserWarning, match="column-vector y"):
        assert classes_of([[2], [1]], PLAIN, None).tolist() == [2, 1]


def test_places_of_classes_are_told_and_unknown_ones_refused():
    classes = np.array(["x", "y"])
    assert codes_of(np.array(["y", "x"]), classes, PLAIN).tolist() == [1, 0]
    for label in ("a", "z"):
        with pytest.raises(
            ValueError, match=f"series 0, column 'y': no training series had the class '{label}'"
        ):
            codes_of(np.array([label, "x"]), classes, PLAIN)


def test_numbers_must_be_finite_ones():
    np.testing.assert_array_equal(numbers_of([[1, 2], [3, 4]], PLAIN, None), [[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match="series 1, column 'y': is inf"):
        numbers_of([1.0, np.inf], PLAIN, None)
    with pytest.raises(ValueError, match="column 'y': holds what is no number: x"):
        numbers_of(["x", "y"], PLAIN, None)
    with pytest.raises(ValueError, match=r"y has shape \(2, 1, 1\)"):
        numbers_of(np.ones((2, 1, 1)), PLAIN, None)
