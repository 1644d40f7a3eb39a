"""Timings take turns, leave warm-up out, and know their spread."""

import pytest

from torchcram.bench import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when the timed functions move it."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_ratio_and_spread_are_those_of_the_rounds(clock):
    """Ours takes 1 s each time, the peer 2, 3, 4, 5, 6: a median of 4, quartiles 3 and 5.

    The warm-up of 50 does not count.
    """
    peers, calls = iter([50.0, 2.0, 3.0, 4.0, 5.0, 6.0]), []

    def ours() -> None:
        calls.append("ours")
        clock[0] += 1.0

    def peer() -> None:
        calls.append("peer")
        clock[0] += next(peers)

    found = timing.take_turns(ours, peer, rounds=5)
    assert found == timing.Timing(ours_ms=1000.0, peer_ms=4000.0, ratio=4.0, spread=2.0)
    assert calls == ["ours", "peer"] * 6


def test_repeats_are_averaged(clock):
    def tick() -> None:
        clock[0] += 0.5

    assert timing.take_turns(tick, tick, rounds=2, repeats=4) == timing.Timing(
        ours_ms=500.0, peer_ms=500.0, ratio=1.0, spread=0.0
    )


def test_one_round_has_no_spread():
    with pytest.raises(ValueError, match="rounds 1 must be at least 2"):
        timing.take_turns(int, int, rounds=1)


def test_another_clock_counts_if_it_is_given(clock):
    other = iter(range(100))
    found = timing.take_turns(int, int, rounds=2, clock=lambda: float(next(other)))
    assert (found.ours_ms, found.peer_ms) == (1000.0, 1000.0)
    assert clock == [0.0]
