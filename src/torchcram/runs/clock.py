"""Seconds that a run has taken, over all the processes that worked on it."""

from __future__ import annotations

import time


class Clock:
    """Time of a run, from the moment the clock is made; setting the wall clock does not move it.

    Attributes:
        seconds_before: what earlier processes of the run took, up to their last checkpoint.
    """

    def __init__(self) -> None:
        self.seconds_before = 0.0
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Return the seconds that the run has taken so far."""
        return self.seconds_before + time.monotonic() - self._started
