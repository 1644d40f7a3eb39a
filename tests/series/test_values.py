"""Numbers are read from whatever holds them, and nothing else is taken for a number."""

from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from torchcram.series.values import is_missing, missing, read_values

NAN = np.nan


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([1, 2], [1.0, 2.0]),
        (np.array([True, False]), [1.0, 0.0]),
        ([1.5, None], [1.5, NAN]),
        (np.array([Decimal("0.5"), pd.NA, pd.NaT], dtype=object), [0.5, NAN, NAN]),
        (np.ma.masked_array([1.0, 7.0], mask=[False, True]), [1.0, NAN]),
        (np.ma.masked_array([1, 7], mask=[False, True]), [1.0, NAN]),
        (pd.array([1.0, None], dtype="Float64"), [1.0, NAN]),
    ],
)
def test_numbers_are_read_and_what_hides_is_missing(given, read):
    np.testing.assert_array_equal(read_values(given, "here"), read)


@pytest.mark.parametrize(
    "given",
    [
        ["1.5"],
        np.array(["1.5"]),
        [1.0, "x"],
        np.array(["2024-01-01"], dtype="M8[D]"),
        np.array(["2024-01-01"], dtype="M8[ns]"),
        np.array([3], dtype="m8[s]"),
        [date(2024, 1, 1)],
        [[1.0, 2.0], [3.0]],
    ],
)
def test_what_is_no_number_is_refused_by_its_place(given):
    with pytest.raises(ValueError, match="series 3: holds what is no number"):
        read_values(given, "series 3")


@pytest.mark.parametrize("given", [[{}], [object()]])
def test_an_object_that_is_no_number_is_an_error_of_type(given):
    with pytest.raises(TypeError, match="series 3: holds what is no number"):
        read_values(given, "series 3")


def test_complex_numbers_do_not_lose_their_imaginary_part():
    for given in (np.array([1j]), [1.0, 2j]):
        with pytest.raises(ValueError, match="here: holds what is complex"):
            read_values(given, "here")


def test_what_is_missing_is_known_in_every_type():
    assert all(is_missing(one) for one in (None, NAN, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT")))
    assert not any(is_missing(one) for one in (0, "", "nan", False, np.datetime64("2024-01-01")))
    assert missing(np.array(["a", None, pd.NA], dtype=object)).tolist() == [False, True, True]
    assert missing(np.array(["2024", "NaT"], dtype="M8[Y]")).tolist() == [False, True]
    assert missing(np.array([1, 2])).tolist() == [False, False]
