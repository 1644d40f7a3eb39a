"""How long a fit will take, told after its first steps, and before an hour is lost."""

from __future__ import annotations

import time
import warnings
from itertools import pairwise
from typing import Any

from torchcram.training.training_progress import TrainingProgress

# Steps that are timed at least; the first of all, in which everything is loaded, is not.
TIMED = 5
# Seconds from which on a fit is called long.
LONG = 1800.0


class FitProgress(TrainingProgress):
    """Training progress that warns once if all steps would take long.

    Acquisition is reckoned with the mean of the timed steps, the other half of a fit with the dearest of
    them, one that reads: where reads pay, every step to come is as dear.

    Args:
        steps: most steps of a fit.
        fits: how many of them are to come, this one included; 0 to tell nothing.
        turns: steps of acquisition of which one reads; at least so many are timed.
        show: whether to show progress; the warning comes anyway.
        advice: what the reader may do about it.
        long: seconds from which on a fit is called long.
    """

    def __init__(
        self, *, steps: int, show: bool, advice: str, fits: int = 1, turns: int = 1, long: float = LONG
    ):
        super().__init__(steps=steps, show=show)
        self.steps, self.fits, self.advice, self.long = steps, fits, advice, long
        self.timed, self.ends = max(TIMED, turns), [time.monotonic()]

    def trained(self, step: int, record: dict[str, Any] | None, phase: str) -> None:
        """See :class:`torchcram.training.training_progress.TrainingProgress`."""
        super().trained(step, record, phase)
        if not self.fits or step > 1 + self.timed:
            return
        self.ends.append(time.monotonic())
        if step == 1 + self.timed:
            taken = [end - begin for begin, end in pairwise(self.ends[1:])]
            seconds = (sum(taken) / len(taken) + max(taken)) / 2 * self.steps * self.fits
            self.say(f"{self.fits} x {self.steps} steps, at most, take about {_readable(seconds)}")
            if seconds >= self.long:
                warnings.warn(f"this fit may take {_readable(seconds)}: {self.advice}", stacklevel=5)


def _readable(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
