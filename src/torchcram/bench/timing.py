"""Fair timings: ours and the peer take turns, after warm-up, so that a busy machine is unfair to neither."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds of both (medians), their ratio, and its spread.

    Attributes:
        ours_ms: median time of ours.
        peer_ms: median time of the peer.
        ratio: median over rounds of peer / ours: how many times faster ours is.
        spread: interquartile range of that ratio over the rounds.
    """

    ours_ms: float
    peer_ms: float
    ratio: float
    spread: float


def take_turns(
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    rounds: int,
    warm_up: int = 1,
    repeats: int = 1,
    clock: Callable[[], float] | None = None,
) -> Timing:
    """Time two functions in turns.

    Args:
        ours: what is judged.
        peer: what it is compared with, on the same inputs.
        rounds: turns of each, at least 2.
        warm_up: turns of each that do not count.
        repeats: calls of ours in a turn (their mean counts): for calls that are much shorter than the peer's.
        clock: in seconds, the wall's if None; ``time.process_time`` where others use the machine, too, with
            one thread.

    Raises:
        ValueError: if there are fewer than two rounds.
    """
    if rounds < 2:
        raise ValueError(f"rounds {rounds} must be at least 2: one turn has no spread")
    for _ in range(warm_up):
        ours()
        peer()
    pairs = [(seconds(ours, repeats, clock), seconds(peer, 1, clock)) for _ in range(rounds)]
    ratios = [theirs / mine for mine, theirs in pairs]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    mine, theirs = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    return Timing(ours_ms=mine, peer_ms=theirs, ratio=statistics.median(ratios), spread=high - low)


def seconds(
    function: Callable[[], object], repeats: int = 1, clock: Callable[[], float] | None = None
) -> float:
    """Return the mean time of a call."""
    _wait()
    now = clock or time.perf_counter
    start = now()
    for _ in range(repeats):
        function()
    _wait()
    return (now() - start) / repeats


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
