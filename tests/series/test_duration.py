"""A long fit is told of after a few steps, once, and a short one is not."""

import warnings
from itertools import accumulate, count

import pytest

from torchcram.series.duration import FitProgress

RECORD = {"any_layer_read_rate": 0.0, "losses": {}}


def told(
    monkeypatch, *, seconds: float, steps: int, fits: int = 1, turns: int = 1, reading: float = 0.0
) -> list[str]:
    """Return the warnings of a fit each of whose steps takes so many seconds, and one in ``turns`` more."""
    clock = accumulate(seconds + reading * (end % turns == 1) for end in count())
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = FitProgress(steps=steps, fits=fits, turns=turns, show=False, advice="do less")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(1, min(steps, 20) + 1):
            progress.trained(step, RECORD, "acquire")
    return [str(one.message) for one in caught]


def test_an_hour_is_told_before_it_is_lost(monkeypatch):
    assert told(monkeypatch, seconds=9.0, steps=400) == ["this fit may take 60 minutes: do less"]
    assert told(monkeypatch, seconds=3.0, steps=400, fits=3) == ["this fit may take 60 minutes: do less"]
    assert told(monkeypatch, seconds=9.0, steps=400, fits=0) == []
    assert told(monkeypatch, seconds=90.0, steps=400) == ["this fit may take 10.0 hours: do less"]


def test_half_of_a_fit_is_reckoned_as_dear_as_a_step_that_reads(monkeypatch):
    """One step in eight takes 14 s, the others 2 s: five steps in a row would have shown none that reads."""
    found = told(monkeypatch, seconds=2.0, reading=12.0, turns=8, steps=400)
    # Half of 400 steps at 3.5 s, half at 14 s.
    assert found == ["this fit may take 58 minutes: do less"]


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 400), (1e6, 3)])
def test_a_short_fit_is_left_alone(monkeypatch, seconds, steps):
    assert told(monkeypatch, seconds=seconds, steps=steps) == []
