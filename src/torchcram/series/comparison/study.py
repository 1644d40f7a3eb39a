"""An experiment: tune every method on split 0, then fit each to every split and judge it once on the test
part.

One process a job, one thread a process, as many at once as there are cores. What is finished is skipped, and
so a test part is never touched again. Files, all JSON, in the folder of the runs: ``tuned/METHOD.json``
(trials), ``METHOD-splitN.json`` (scores), ``cram-map.json`` (routes of one series).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchcram.series.comparison.methods import METHODS, Fitted
from torchcram.series.comparison.neural import Neural
from torchcram.series.comparison.patient import patient_map
from torchcram.series.comparison.problems import PROBLEMS, Problem
from torchcram.series.comparison.scores import calibration, scores
from torchcram.series.comparison.tuning import tune
from torchcram.series.splits import SPLITS
from torchcram.strict import require_choice, require_positive
from torchcram.types import RoutingControl

# Seconds of training on one split.
MOST_SECONDS = 900.0

# A method to be tuned, or a method and a split to be judged.
Job = tuple[str] | tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where an experiment keeps its files.

    Attributes:
        problem: name in :data:`torchcram.series.comparison.problems.PROBLEMS`.
        runs: folder of everything that jobs write.
    """

    problem: str
    runs: Path

    def tuned(self, method: str) -> Path:
        """Return the file of a method's trials."""
        return self.runs / "tuned" / f"{method}.json"

    def result(self, method: str, split: int) -> Path:
        """Return the file of a method's scores on a split."""
        return self.runs / f"{method}-split{split}.json"

    def load(self) -> Problem:
        """Load the data.

        Raises:
            FileNotFoundError: if they are absent, with the way to get them.
        """
        return PROBLEMS[require_choice("problem", self.problem, PROBLEMS)].load()

    def tune(self, method: str, *, say: Callable[[str], None]) -> None:
        """Tune a method, unless that is done; ``say`` takes a line a trial."""
        if not self.tuned(method).exists():
            trials = tune(
                METHODS[method], self.load(), journal=self.tuned(method).with_suffix(".journal"), say=say
            )
            write(self.tuned(method), trials)

    def judge(self, method: str, split: int) -> None:
        """Fit a tuned method to a split and judge it on the test part, unless that is done.

        Raises:
            FileNotFoundError: if the method is not tuned yet.
        """
        if self.result(method, split).exists():
            return
        best, problem, begin = json.loads(self.tuned(method).read_text())[0], self.load(), time.monotonic()
        fitted = METHODS[method].fit(problem, split, best["parameters"], seed=split, limit=MOST_SECONDS)
        seconds = time.monotonic() - begin
        self._mapped(method, split, problem, fitted)
        write(
            self.result(method, split),
            {
                "method": method,
                "split": split,
                "seconds": seconds,
                "parameters": best["parameters"],
                **record(fitted),
            },
        )

    def _mapped(self, method: str, split: int, problem: Problem, fitted: Fitted) -> None:
        routes = (
            patient_map(problem, fitted)
            if method == "cram" and split == 0 and isinstance(fitted, Neural)
            else None
        )
        if routes is not None:
            write(self.runs / "cram-map.json", routes)


def record(fitted: Fitted) -> dict[str, Any]:
    """Return what the test part says of a fitted method: its scores (of routers also with all reads
    forced), reads, speed and calibration.
    """
    outcome = fitted.judge("test")
    size = {"weights": fitted.parameters, "steps": fitted.steps} if isinstance(fitted, Neural) else {}
    rates = {"attention_share": outcome.attention_share, "per_second": outcome.per_second}
    forced = (
        scores(fitted.judge("test", control=RoutingControl(reads="all")))
        if isinstance(fitted, Neural) and fitted.routes
        else {}
    )
    return {**scores(outcome), **rates, **size, "all_reads": forced, "calibration": calibration(outcome)}


def write(file: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(file)


def main(
    study: Study, *, script: Path, say: Callable[[str], None], arguments: Sequence[str] | None = None
) -> None:
    """Run an experiment from the command line.

    Args:
        study: the experiment.
        script: the file that calls this: jobs are processes of it.
        say: takes a line for whatever ends.
        arguments: of the command line; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", choices=list(METHODS), default=list(METHODS), help="methods; all if not given"
    )
    parser.add_argument(
        "--splits",
        nargs="*",
        type=int,
        choices=range(SPLITS),
        default=list(range(SPLITS)),
        help="splits; all if not given",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--job", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.job:
        method, *split = asked.job
        study.judge(method, int(split[0])) if split else study.tune(method, say=say)
        return
    require_positive(jobs=asked.jobs)
    tunings: list[Job] = [(method,) for method in asked.only]
    judgements: list[Job] = [(method, str(split)) for split in asked.splits for method in asked.only]
    for title, stage in (("tuning", tunings), ("test", judgements)):
        with ThreadPoolExecutor(asked.jobs) as pool:
            for number, ended in enumerate(pool.map(lambda job: _launch(study, script, job), stage), start=1):
                say(f"{title} {number} of {len(stage)}: {ended}")


def _launch(study: Study, script: Path, job: Job) -> str:
    """Run one job in a process of its own, unless it is finished; return how it went."""
    method, *split = job
    target = study.result(method, int(split[0])) if split else study.tuned(method)
    what = f"{method}, split {split[0]}" if split else method
    if target.exists():
        return f"{what}: finished before"
    target.parent.mkdir(parents=True, exist_ok=True)
    log, begin = target.with_suffix(".log"), time.monotonic()
    with log.open("a") as stream:
        command = [sys.executable, str(script), "--job", *job]
        code = subprocess.run(
            command, stdout=stream, stderr=stream, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
        ).returncode
    seconds = time.monotonic() - begin
    return f"{what}: " + (f"finished in {seconds:.0f} s" if code == 0 else f"exit status {code}, see {log}")
