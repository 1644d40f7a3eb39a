import numpy as np
import pytest

from torchcram.report.fits import detect_transition


def falling(fall: int, *, before: float, after: float, size: int, noise: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(fall)
    rate = np.where(np.arange(size) < fall, before, after)
    return np.clip(rate * np.exp(noise * random.standard_normal(size)), 0.0, 1.0)


@pytest.mark.parametrize("fall", [12, 70, 150])
def test_a_planted_fall_is_found_where_it_is(fall: int):
    transition = detect_transition(10.0 * np.arange(180), falling(fall, before=0.9, after=0.02, size=180))
    assert transition is not None
    assert transition.step == 10.0 * fall
    assert transition.before == pytest.approx(0.9, rel=0.1)
    assert transition.after == pytest.approx(0.02, rel=0.1)


def test_the_sharpest_of_several_falls_is_reported():
    rate = np.concatenate([np.full(50, 1.0), np.full(50, 0.5), np.full(50, 0.02), np.full(30, 0.015)])
    transition = detect_transition(np.arange(180.0), rate)
    assert transition is not None
    assert (transition.step, transition.before) == (100.0, pytest.approx(0.5))


def test_a_long_curve_is_placed_within_a_block():
    transition = detect_transition(np.arange(5000.0), falling(3100, before=1.0, after=0.05, size=5000))
    assert transition is not None
    assert abs(transition.step - 3100) <= 25


@pytest.mark.parametrize(
    "rate",
    [
        falling(0, before=1.0, after=0.5, size=150),  # noise around a constant
        np.full(150, 1.0),  # a dense model
        falling(75, before=0.05, after=0.9, size=150),  # a rise is no fall
        falling(75, before=0.5, after=0.4, size=150, noise=0.01),  # certain, but too small
        np.array([1.0, 1.0, 0.1]),  # too short to say
        np.array([]),
    ],
)
def test_no_transition_is_invented(rate: np.ndarray):
    assert detect_transition(np.arange(float(len(rate))), rate) is None


def test_a_rate_of_zero_is_a_fall_like_any_other():
    transition = detect_transition(np.arange(100.0), np.where(np.arange(100) < 40, 1.0, 0.0))
    assert transition is not None
    assert (transition.step, transition.after) == (40.0, pytest.approx(1e-4))
