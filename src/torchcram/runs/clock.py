"""Seconds since the process started, plus those of the processes that a resumed run continues."""

from __future__ import annotations

import time

import psutil


class Clock:
    """Wall-clock time of a run.

    Attributes:
        seconds_before: what earlier processes of the run took, up to their last checkpoint.
    """

    def __init__(self) -> None:
        self.seconds_before = 0.0
        self._born = psutil.Process().create_time()

    def seconds(self) -> float:
        """Return the seconds that the run has taken so far, from the start of the process."""
        return self.seconds_before + time.time() - self._born
