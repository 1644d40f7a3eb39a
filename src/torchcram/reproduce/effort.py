"""How much training a job takes, and how much of it is done: in steps, and in hours of one core."""

from __future__ import annotations

from collections.abc import Sequence

from torchcram.reproduce.plan import Job
from torchcram.runs.run_dir import RunDir

# Seconds that one core takes for a token of training, width and depth as in the presets: about 0.22 s for
# 2,048 tokens on the machine of the tests.
SECONDS_PER_TOKEN = 1.1e-4
# Seconds of the end of a run: calibration, and two evaluations.
SECONDS_AT_END = 8.0


def steps_of(job: Job) -> int:
    """Return how many steps a job takes, as far as can be told before."""
    longest = job.config.controller.acquire_steps
    steps = job.config.training.steps
    acquiring = steps if longest is None else min(longest, steps)
    if job.acquires:
        return acquiring
    return steps - acquiring if job.start is not None and job.start.acquires else steps


def steps_done(job: Job) -> int:
    """Return how many of them it has taken, by the last complete line of its metrics."""
    if job.finished:
        return steps_of(job)
    before = 0 if job.acquires else job.config.training.steps - steps_of(job)
    last = RunDir(job.folder).last_step()
    return 0 if last is None else min(max(last + 1 - before, 0), steps_of(job))


def core_hours(jobs: Sequence[Job]) -> float:
    """Return about how many hours one core would take for what is left of some jobs."""
    tokens = sum((steps_of(job) - steps_done(job)) * job.config.training.tokens_per_step for job in jobs)
    return (tokens * SECONDS_PER_TOKEN + SECONDS_AT_END * sum(not job.acquires for job in jobs)) / 3600
