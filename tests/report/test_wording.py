import pytest

from torchcram.report.wording import count, duration, factor, percent, times


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100%"),
        (0.99996, "> 99.99%"),
        (0.9984, "99.84%"),
        (0.0141, "1.41%"),
        (0.5, "50%"),
        (0.00001, "< 0.01%"),
        (0.0, "0%"),
    ],
)
def test_a_percentage_never_rounds_a_miss_away(share: float, text: str):
    assert percent(share) == text


def test_other_numbers_read_well():
    assert [factor(ratio) for ratio in (1.078, 37.81, 1234.5)] == ["1.08x", "37.8x", "1,234x"]
    assert times(1.078) == "1.08 times"
    assert count(148122.0) == "148,122"
    assert [duration(seconds) for seconds in (41.6, 470.0, 7505.0)] == ["42 s", "7 min 50 s", "2 h 05 min"]
