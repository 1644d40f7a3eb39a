"""How long a fit will take, told after its first steps, and before an hour is lost."""

from __future__ import annotations

import time
import warnings
from typing import Any

from torchcram.training.training_progress import TrainingProgress

# Steps that are timed; the first of all, in which everything is loaded, is not.
TIMED = 5
# Seconds from which on a fit is called long.
LONG = 1800.0


class FitProgress(TrainingProgress):
    """Training progress that warns once if all steps would take long.

    Args:
        steps: most steps of a fit.
        fits: how many of them are to come, this one included; 0 to tell nothing.
        show: whether to show progress; the warning comes anyway.
        advice: what the reader may do about it.
        long: seconds from which on a fit is called long.
    """

    def __init__(self, *, steps: int, show: bool, advice: str, fits: int = 1, long: float = LONG):
        super().__init__(steps=steps, show=show)
        self.steps, self.fits, self.advice, self.long = steps, fits, advice, long
        self.begin = time.monotonic()

    def trained(self, step: int, record: dict[str, Any] | None, phase: str) -> None:
        """See :class:`torchcram.training.training_progress.TrainingProgress`."""
        super().trained(step, record, phase)
        if step == 1:
            self.begin = time.monotonic()
        if step == 1 + TIMED and self.fits:
            seconds = (time.monotonic() - self.begin) / TIMED * self.steps * self.fits
            self.say(f"{self.fits} x {self.steps} steps, at most, take about {_readable(seconds)}")
            if seconds >= self.long:
                warnings.warn(f"this fit may take {_readable(seconds)}: {self.advice}", stacklevel=5)


def _readable(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
