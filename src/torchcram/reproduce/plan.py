"""Which runs a claim needs, where they lie, and how far each has come.

A run is known by the digest of its configuration and the hash of the code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchcram.reproduce.claim import Claim, Method
from torchcram.runs.run_dir import ACQUISITION, CONFIG, MODEL, SUMMARY
from torchcram.strict import require_choice
from torchcram.training.acquisition import acquisition_of
from torchcram.training.presets import PRESETS
from torchcram.training.run_config import RunConfig

State = Literal["finished", "stale", "failed", "started", "missing"]
LOGS, CONFIGS = "logs", "configs"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process: a run, or an acquisition that several runs share.

    Attributes:
        config: what is trained.
        runs: folder that holds all runs.
        source: hash of the code.
        start: the acquisition, or the finished run, that a run starts from, or None.
        acquires: whether this is an acquisition.
    """

    config: RunConfig
    runs: Path
    source: str
    start: Job | None = None
    acquires: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.config.name}-{self.config.digest()}-{self.source}"

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.runs / self.name

    @property
    def log(self) -> Path:
        """What its process says."""
        return self.runs / LOGS / f"{self.name}.log"

    @property
    def config_file(self) -> Path:
        """Its configuration, written before it is started."""
        return self.runs / CONFIGS / f"{self.name}.json"

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return (self.folder / (ACQUISITION if self.acquires else SUMMARY)).exists()

    @property
    def failure(self) -> str | None:
        """Why its process stopped, if it did."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return lines[-1].removeprefix("error: ") if lines and lines[-1].startswith("error: ") else None

    @property
    def state(self) -> State:
        """How far it has come. ``stale``: finished, but with other code than this."""
        if self.finished:
            return "finished"
        if self.failure is not None:
            return "failed"
        if (self.folder / CONFIG).exists():
            return "started"
        return "stale" if self.stale_folders else "missing"

    @property
    def stale_folders(self) -> list[Path]:
        """Folders of the same run with other code, finished, oldest first."""
        finished = [
            file.parent for file in self.runs.glob(f"{self.config.name}-{self.config.digest()}-*/{SUMMARY}")
        ]
        return sorted(
            (folder for folder in finished if folder != self.folder),
            key=lambda folder: (folder / SUMMARY).stat().st_mtime,
        )

    @property
    def before(self) -> list[Job]:
        """What must be finished before it can start, first things first."""
        return [] if self.start is None else [*self.start.before, self.start]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run as a claim sees it."""

    claim: Claim
    method: Method
    seed: int
    scale: str
    job: Job


def plan(
    claims: Sequence[Claim], *, scale: str, seeds: int, runs: Path, source: str, also: Sequence[str] = ()
) -> list[PlannedRun]:
    """Return all runs of some claims, seed by seed, so that a first seed of everything is there early.

    ``also`` names methods that are wanted at a scale where their claim does without.

    Raises:
        ValueError: for an unknown scale, with the nearest, and for less than one seed.
    """
    preset = PRESETS[require_choice("scale", scale, PRESETS)]()
    if seeds < 1:
        raise ValueError(f"seeds {seeds} must be at least 1")
    at_scale = [(claim, claim.methods_at(scale, also=also)) for claim in claims if scale in claim.scales]
    asked = [
        (claim, method, seed)
        for claim, methods in at_scale
        for seed in claim.seeds_of(seeds)
        for method in methods
    ]
    wanted = [(claim, method, seed, method.config(preset, seed=seed)) for claim, method, seed in asked]
    bases = [
        method.base.config(preset, seed=seed) for _, method, seed, _ in wanted if method.base is not None
    ]
    jobs = _jobs([*bases, *(config for *_, config in wanted)], runs=runs, source=source)
    return [
        PlannedRun(claim=claim, method=method, seed=seed, scale=scale, job=jobs[config.digest()])
        for claim, method, seed, config in wanted
    ]


def _jobs(configs: Sequence[RunConfig], *, runs: Path, source: str) -> dict[str, Job]:
    """Return the job of each run, by the digest of its configuration.

    What runs start from must come before them.
    """
    starts = _shared({config.digest(): config for config in configs}.values(), runs=runs, source=source)
    jobs: dict[str, Job] = {}
    for digest, (config, acquisition) in starts.items():
        start = acquisition if config.start_from is None else jobs[config.start_from]
        jobs[digest] = Job(config=config, runs=runs, source=source, start=start)
    return jobs


def _shared(
    configs: Iterable[RunConfig], *, runs: Path, source: str
) -> dict[str, tuple[RunConfig, Job | None]]:
    """Return each run with the acquisition that it shares with at least one other, or None."""
    sharing = {config.digest(): (config, acquisition_of(config)) for config in configs}
    users = Counter(acquisition.digest() for _, acquisition in sharing.values() if acquisition is not None)
    return {
        digest: (
            config,
            Job(config=acquisition, runs=runs, source=source, acquires=True)
            if acquisition is not None and users[acquisition.digest()] > 1
            else None,
        )
        for digest, (config, acquisition) in sharing.items()
    }


def jobs_to_do(planned: Sequence[PlannedRun], *, refresh: bool) -> list[Job]:
    """Return what is left to train, everything after what it starts from. Stale runs only with ``refresh``.

    Raises:
        ValueError: if a finished run that another one starts from has lost its weights.
    """
    left: dict[str, Job] = {}
    for job in (run.job for run in planned):
        if job.finished or (job.state == "stale" and not refresh):
            continue
        for needed in job.before:
            if not needed.finished:
                left.setdefault(needed.name, needed)
            elif not needed.acquires and not (needed.folder / MODEL).exists():
                raise ValueError(
                    f"{needed.folder} is finished, but its {MODEL} is gone, and other runs start "
                    "from it: delete the folder to train it again"
                )
        left.setdefault(job.name, job)
    return list(left.values())
