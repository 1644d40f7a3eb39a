"""A long fit is told of after a few steps, once, and a short one is not."""

import warnings
from itertools import count

import pytest

from torchcram.series.duration import FitProgress

RECORD = {"any_layer_read_rate": 0.0, "losses": {}}


def told(monkeypatch, *, seconds: float, steps: int, fits: int = 1) -> list[str]:
    """Return the warnings of a fit each of whose steps takes so many seconds."""
    clock = count()
    monkeypatch.setattr("time.monotonic", lambda: seconds * next(clock))
    progress = FitProgress(steps=steps, fits=fits, show=False, advice="do less")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(1, min(steps, 20) + 1):
            progress.trained(step, RECORD, "acquire")
    return [str(one.message) for one in caught]


def test_an_hour_is_told_before_it_is_lost(monkeypatch):
    # Of the clock's ticks, two are asked for five steps.
    assert told(monkeypatch, seconds=45.0, steps=400) == ["this fit may take 60 minutes: do less"]
    assert told(monkeypatch, seconds=15.0, steps=400, fits=3) == ["this fit may take 60 minutes: do less"]
    assert told(monkeypatch, seconds=45.0, steps=400, fits=0) == []
    assert told(monkeypatch, seconds=450.0, steps=400) == ["this fit may take 10.0 hours: do less"]


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 400), (1e6, 3)])
def test_a_short_fit_is_left_alone(monkeypatch, seconds, steps):
    assert told(monkeypatch, seconds=seconds, steps=steps) == []
