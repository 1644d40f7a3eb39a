"""What a sweep shows: one bar for all of it with the time left, one line for each run under way, and a
printed line for each that ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import TaskID
from rich.text import Text

from torchcram.reproduce.effort import steps_done, steps_of
from torchcram.reproduce.plan import Job
from torchcram.runs.progress import LiveProgress

# Seconds over which the speed is measured: runs of different methods differ.
SPEED_PERIOD = 600.0


class SweepProgress(LiveProgress):
    """Progress in training steps, over all runs.

    Args:
        jobs: what is to be done.
        titles: what to call them, by their names.
        show: False for silence.
    """

    def __init__(self, jobs: Sequence[Job], *, titles: dict[str, str], show: bool = True):
        super().__init__(width=44, show=show, speed_period=SPEED_PERIOD)
        self.titles, self.count = titles, len(jobs)
        self.work = {job.name: steps_of(job) for job in jobs}
        self.done = {job.name: steps_done(job) for job in jobs}
        self.lines: dict[str, TaskID] = {}
        self.ends = 0
        self.whole = self.progress.add_task(
            "[bold]all runs, in steps", total=sum(self.work.values()), completed=sum(self.done.values())
        )

    def began(self, job: Job) -> None:
        """A run has begun."""
        self.lines[job.name] = self.progress.add_task(
            self.titles.get(job.name, job.name), total=self.work[job.name], completed=self.done[job.name]
        )

    def look(self, active: Sequence[Job]) -> None:
        """Look how far the runs under way have come."""
        for job in active:
            self.done[job.name] = max(self.done[job.name], steps_done(job))
            self.progress.update(self.lines[job.name], completed=self.done[job.name])
        self.progress.update(self.whole, completed=sum(self.done.values()))

    def ended(self, job: Job) -> None:
        """A run has ended, well or not; its steps are no longer to be done."""
        self.ends += 1
        self.done[job.name] = self.work[job.name]
        if job.name in self.lines:
            self.progress.remove_task(self.lines.pop(job.name))
        self.progress.update(self.whole, completed=sum(self.done.values()))
        end = ("finished",) if job.finished else (("failed", "red"), f": {job.failure}")
        self.say(Text.assemble(f"{self.ends}/{self.count} {self.titles.get(job.name, job.name)}: ", *end))
