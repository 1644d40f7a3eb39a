"""What a sweep shows: one bar for all of it with the time left, one line for each run under way, and a
printed line for each that ended.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from torchcram.reproduce.plan import Job
from torchcram.training.run_dir import METRICS

TAIL = 8192  # bytes
# Seconds over which the speed is measured: runs of different methods differ.
SPEED_PERIOD = 600.0
# Seconds that one core takes for a token of training, width and depth as in the presets: about 0.22 s for
# 2,048 tokens on the machine of the tests.
SECONDS_PER_TOKEN = 1.1e-4
# Seconds of the end of a run: calibration, and two evaluations.
SECONDS_AT_END = 8.0


class SweepProgress(AbstractContextManager["SweepProgress"]):
    """Progress in training steps, over all runs.

    Args:
        jobs: what is to be done.
        titles: what to call them, by their names.
        show: False for silence.
    """

    def __init__(self, jobs: Sequence[Job], *, titles: dict[str, str], show: bool = True):
        self.console = Console(stderr=True, quiet=not show)
        times = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        columns = (TextColumn("{task.description:<44}"), BarColumn(), *times)
        live = show and self.console.is_terminal
        self.progress = Progress(
            *columns,
            console=self.console,
            disable=not live,
            transient=True,
            speed_estimate_period=SPEED_PERIOD,
        )
        self.titles, self.count = titles, len(jobs)
        self.work = {job.name: steps_of(job) for job in jobs}
        self.done = {job.name: steps_done(job) for job in jobs}
        self.lines: dict[str, TaskID] = {}
        self.ends = 0
        self.whole = self.progress.add_task(
            "[bold]all runs, in steps", total=sum(self.work.values()), completed=sum(self.done.values())
        )

    def __enter__(self) -> SweepProgress:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

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
        end = "finished" if job.finished else f"[red]failed[/red]: {job.failure}"
        self.console.print(
            f"{self.ends}/{self.count} {self.titles.get(job.name, job.name)}: {end}",
            highlight=False,
            soft_wrap=True,
        )


def steps_of(job: Job) -> int:
    """Return how many steps a job takes, as far as can be told before."""
    longest = job.config.controller.acquire_steps
    steps = job.config.training.steps
    acquiring = steps if longest is None else min(longest, steps)
    return (
        acquiring
        if job.acquires
        else steps - acquiring
        if job.start is not None and job.start.acquires
        else steps
    )


def core_hours(jobs: Sequence[Job]) -> float:
    """Return about how many hours one core would take for what is left of some jobs."""
    tokens = sum((steps_of(job) - steps_done(job)) * job.config.training.tokens_per_step for job in jobs)
    return (tokens * SECONDS_PER_TOKEN + SECONDS_AT_END * sum(not job.acquires for job in jobs)) / 3600


def steps_done(job: Job) -> int:
    """Return how many of them it has taken, by the last complete line of its metrics."""
    if job.finished:
        return steps_of(job)
    before = 0 if job.acquires else job.config.training.steps - steps_of(job)
    return min(max(_last_step(job) + 1 - before, 0), steps_of(job))


def _last_step(job: Job) -> int:
    file = job.folder / METRICS
    if not file.exists():
        return -1
    with file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - TAIL))
        lines = handle.read().split(b"\n")
    for line in reversed(lines[:-1]):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return -1
