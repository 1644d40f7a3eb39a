"""Finished runs that nobody trained: their files, for the tests of sweeps and of what is made of them."""

import json
from pathlib import Path

from torchcram.reproduce.claim import Claim, Goal, Method, Picture
from torchcram.reproduce.plan import Job, PlannedRun, plan

SOURCE = "0123456789ab"
SUMMARY = {
    "retrieval_accuracy": 0.995,
    "any_layer_read_rate": 0.015,
    "any_layer_floor": 0.014,
    "read_rate_by_layer": [0.015, 0.0],
    "transition_step": None,
}

TOY = Claim(
    name="99_toy",
    folder="99_toy",
    methods=(
        Method(name="cram", title="CRAM", changes={}, family="CRAM", at=0.5),
        Method(
            name="cheap", title="CRAM, cheap", changes={"controller.exploration": 0.1}, family="CRAM", at=0.7
        ),
        Method(name="dense", title="dense", changes={"model.mixer": "transformer"}),
    ),
    figures=("retrieval_accuracy", "any_layer_read_rate", "transition_step"),
    goals=(
        Goal(method="cram", figure="retrieval_accuracy", sign=">=", number=0.99),
        Goal(method="cram", figure="any_layer_read_rate", sign="<=", than=("dense",), times=0.2),
    ),
    picture=Picture(kind="dots", title="Toys"),
)


def fake_run(
    folder: Path, job: Job, *, rates: tuple[float, ...] = (1.0, 0.5, 0.02), **figures: object
) -> None:
    """Write what a finished run leaves behind."""
    folder.mkdir(parents=True)
    dense = job.config.model.mixer == "transformer"
    summary = {**SUMMARY, "any_layer_read_rate": 1.0 if dense else 0.015, **figures}
    summary |= {
        "seed": job.config.seed,
        "config_hash": job.config.digest(),
        "run_dir": str(folder),
        "finished": "2026-01-01T00:00:00+00:00",
    }
    (folder / "config.json").write_text(job.config.model_dump_json())
    (folder / "environment.json").write_text(json.dumps({"source": folder.name.rsplit("-", 1)[1]}))
    lines = [
        {"kind": "train", "step": 10 * index, "any_layer_read_rate": rate, "phase": "acquire"}
        for index, rate in enumerate(rates)
    ]
    edges = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500]
    # Ten patterns from the start, which always read, and thirty late ones, a tenth of which came to the last
    # bin.
    late = [[55, 36, 24, 18, 12, 6, 5, 3, 0], [35, 24, 16, 12, 8, 4, 3, 2, 0]] * 15
    asked = [[60] * 8 + [60 * (row < 3)] for row in range(30)]
    lines.append(
        {
            "kind": "exposures",
            "step": 700,
            "edges": edges,
            "queries": [[60] * 9] * 10 + asked,
            "reads": [[60] * 9] * 10 + late,
        }
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps(summary))


class Ended:
    """A process that has ended."""

    def __init__(self, status: int = 0):
        self.status = status

    def poll(self) -> int | None:
        return self.status

    def send_signal(self, sig: int) -> None:
        raise AssertionError("an ended process gets no signal")

    def wait(self) -> int:
        return self.status


def finish_at_once(job: Job) -> Ended:
    """Stand in for :func:`torchcram.reproduce.sweep.launch`: the run is finished as soon as it is started."""
    if job.acquires:
        job.folder.mkdir(parents=True)
        (job.folder / "acquisition.json").write_text("{}")
    else:
        fake_run(job.folder, job)
    return Ended()


def toys(folder: Path, *, seeds: int = 2, source: str = SOURCE) -> list[PlannedRun]:
    """Return the runs of the toy claim."""
    return plan([TOY], scale="mini", seeds=seeds, runs=folder, source=source)


def trained(folder: Path, *, seeds: int = 2, source: str = SOURCE, **figures: object) -> list[PlannedRun]:
    """Return the runs of the toy claim, finished."""
    runs = toys(folder, seeds=seeds, source=source)
    for run in runs:
        fake_run(run.job.folder, run.job, **figures)
    return runs
