"""Keys until a level is reached, on planted records."""

import pytest

from torchcram.reproduce.saved_work import keys_until, saved


@pytest.mark.parametrize(("level", "keys"), [(0.5, 30.0), (0.4, 10.0), (0.9, 40.0), (0.95, None)])
def test_the_first_evaluation_that_reaches_the_level_counts(level, keys):
    assert keys_until([0.4, 0.3, 0.8, 0.9], [10.0, 20.0, 30.0, 40.0], level=level) == keys


def test_nothing_is_reached_without_evaluations():
    assert keys_until([], [], level=0.0) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "share"),
    [
        (25.0, 100.0, 0.75),
        (150.0, 100.0, -0.5),
        (0.0, 100.0, 1.0),
        (None, 1.0, None),
        (1.0, None, None),
        (1.0, 0.0, None),
    ],
)
def test_what_is_saved_is_a_share_of_the_rivals_keys(ours, theirs, share):
    assert saved(ours, theirs) == share
