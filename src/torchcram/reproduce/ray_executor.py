"""Sweeps over the machines of a Ray cluster (extra ``ray``): one Ray task a run, one core each; placing them
and losing nodes is Ray's affair.

A thin adapter: :class:`RayProcess` looks to :func:`torchcram.reproduce.sweep.sweep` like a local process.
Every node needs this package with the same code (a worker refuses other code), and the working folder, where
the runs lie, under the same path.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchcram.reproduce.plan import Job
from torchcram.reproduce.sweep import THREADS, command_of, prepare
from torchcram.strict import optional

# Exit status of a run that Ray has given up: its node is gone.
LOST = 70


class RayProcess:
    """A Ray task that runs one process, with the face of :class:`subprocess.Popen`.

    Args:
        ray: the module.
        task: reference to the exit status that the task will return.
        stop: file that asks the task to let its process save and end.
    """

    def __init__(self, ray: Any, task: Any, *, stop: Path):
        self.ray, self.task, self.stop = ray, task, stop

    def poll(self) -> int | None:
        """Return the exit status, None while it runs or waits for a core."""
        ended, _ = self.ray.wait([self.task], timeout=0)
        return self.wait() if ended else None

    def send_signal(self, sig: int) -> None:
        """Ask the process to save and end. Ray's own cancelling would not wait until it has."""
        del sig
        self.stop.touch()

    def wait(self) -> int:
        """Wait for the end and return the exit status."""
        try:
            return int(self.ray.get(self.task))
        except self.ray.exceptions.RayError:
            return LOST


@contextmanager
def ray_cluster() -> Iterator[tuple[Callable[[Job], RayProcess], int]]:
    """Join the cluster that ``RAY_ADDRESS`` names, or start one on this machine; yield what starts a job
    there, and the number of its cores.

    Raises:
        MissingExtraError: without Ray.
    """
    ray = optional("ray", extra="ray")
    joined = ray.is_initialized()
    if not joined:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    task = ray.remote(num_cpus=1, max_retries=0)(follow)
    try:
        yield (lambda job: _start(ray, task, job)), max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if not joined:
            ray.shutdown()


def _start(ray: Any, task: Any, job: Job) -> RayProcess:
    prepare(job)
    stop = job.log.with_suffix(".stop").resolve()
    stop.unlink(missing_ok=True)
    return RayProcess(
        ray, task.remote(command_of(job), str(job.log), str(stop), str(Path.cwd()), THREADS), stop=stop
    )


def follow(command: list[str], log: str, stop: str, folder: str, threads: tuple[str, ...]) -> int:
    """Run a command on a node until it ends, passing on the wish to stop; return its exit status.

    Ray finds this function by its name.
    """
    if Path(stop).exists():
        return 130
    os.chdir(folder)
    with Path(log).open("w") as file:
        environment = {**os.environ, **dict.fromkeys(threads, "1")}
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    asked = False
    while process.poll() is None:
        if not asked and Path(stop).exists():
            process.send_signal(signal.SIGINT)
            asked = True
        time.sleep(0.2)
    return process.wait()
