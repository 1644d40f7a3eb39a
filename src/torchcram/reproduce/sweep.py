"""Many runs on the cores of one machine: one process a run, one thread a process, never more at once than
asked for.

A run that fails leaves its reason in its log; the others go on. Ctrl-C, and a request to end, let every
process finish its step and save.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torchcram.reproduce.plan import Job
from torchcram.reproduce.sweep_progress import SweepProgress
from torchcram.runs.interruption import interruptible
from torchcram.strict import require_positive

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@runtime_checkable
class Process(Protocol):
    """A process that was started; :class:`subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal."""
        ...

    def wait(self) -> int:
        """Wait for the end."""
        ...


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(job: Job) -> None:
    """Write what a job's process will read, and make the folder of its log."""
    for folder in (job.log.parent, job.config_file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    job.config_file.write_text(job.config.model_dump_json(indent=1))


def command_of(job: Job) -> list[str]:
    """Return the command of a job's process."""
    command = [
        sys.executable,
        "-m",
        "torchcram.reproduce.worker",
        str(job.config_file),
        str(job.folder),
        job.source,
    ]
    command += ["--acquire"] if job.acquires else []
    return command + (["--start", str(job.start.folder)] if job.start is not None else [])


def launch(job: Job) -> Process:
    """Start a job's process, apart from the terminal: Ctrl-C reaches it through :func:`sweep` alone, and
    once.
    """
    prepare(job)
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    with job.log.open("w") as log:
        return subprocess.Popen(
            command_of(job),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )


def sweep(
    jobs: Sequence[Job],
    *,
    workers: int,
    progress: SweepProgress,
    start: Callable[[Job], Process] = launch,
    pause: float = 1.0,
) -> None:
    """Work through jobs until none is left that can be started.

    Args:
        jobs: every one after what it starts from.
        workers: processes at once.
        progress: what shows them.
        start: starts a process.
        pause: seconds between looks at the processes.

    Raises:
        ValueError: for less than one worker.
        KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGHUP, once every process has saved and ended.
    """
    require_positive(jobs=workers)
    waiting, active = list(jobs), dict[str, tuple[Job, Process]]()
    with interruptible():
        try:
            while waiting or active:
                for name, (job, process) in list(active.items()):
                    if process.poll() is not None:
                        del active[name]
                        _ended(job, process, progress)
                _drop_hopeless(waiting, active, progress)
                while len(active) < workers and (
                    ready := [job for job in waiting if job.start is None or job.start.finished]
                ):
                    job = ready[0]
                    waiting.remove(job)
                    active[job.name] = (job, start(job))
                    progress.began(job)
                progress.look([job for job, _ in active.values()])
                time.sleep(pause if active else 0)
        except BaseException:
            _stop([process for _, process in active.values()])
            raise


def _ended(job: Job, process: Process, progress: SweepProgress) -> None:
    status = process.poll()
    if not job.finished and job.failure is None:
        # Killed, or a traceback: the reason must still be the last line.
        with job.log.open("a") as log:
            log.write(f"\nerror: the process ended with exit status {status}, see {job.log}\n")
    progress.ended(job)


def _drop_hopeless(
    waiting: list[Job], active: dict[str, tuple[Job, Process]], progress: SweepProgress
) -> None:
    """Give up runs whose start is neither there, nor under way, nor about to be."""
    coming = {job.name for job in waiting} | set(active)
    for job in [
        job
        for job in waiting
        if job.start is not None and not job.start.finished and job.start.name not in coming
    ]:
        waiting.remove(job)
        assert job.start is not None
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text(
            f"error: the {'acquisition' if job.start.acquires else 'run'} that it starts from "
            f"failed: {job.start.failure}\n"
        )
        progress.ended(job)


def _stop(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait()
