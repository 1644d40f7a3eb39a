"""One call of ``torchcram reproduce``: what some claims still need, training it, and writing their pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from torchcram.report.page import between
from torchcram.reproduce.claim import Claim, Row
from torchcram.reproduce.claim_page import write_claim
from torchcram.reproduce.claims import claims_named
from torchcram.reproduce.effort import core_hours, steps_done, steps_of
from torchcram.reproduce.plan import Job, PlannedRun, jobs_to_do, plan
from torchcram.reproduce.ray_executor import ray_cluster
from torchcram.reproduce.readme import MARKS, README, readme_of
from torchcram.reproduce.records import Key, key_of, recorded
from torchcram.reproduce.results_page import overview, write_overview
from torchcram.reproduce.sweep import cores, launch, sweep
from torchcram.reproduce.sweep_progress import SweepProgress
from torchcram.runs.source import source_hash
from torchcram.strict import require_choice
from torchcram.training.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What there is of some claims, and what is to do.

    Attributes:
        claims: those that are trained at the scale.
        planned: all of their runs.
        records: rows that need no run.
        todo: processes that are still to run.
        source: hash of the code.
        experiments: folder of the claims' results.
    """

    claims: Sequence[Claim]
    planned: Sequence[PlannedRun]
    records: Mapping[Key, Row]
    todo: Sequence[Job]
    source: str
    experiments: Path

    def show(self, console: Console) -> None:
        """Print the runs, and what is left to do, in steps and core-hours."""
        table = Table("claim", "method", "seed", "state", "folder", box=None, header_style="bold")
        for run in self.planned:
            state = "recorded" if key_of(run) in self.records else run.job.state
            table.add_row(run.claim.name, run.method.name, str(run.seed), state, run.job.name)
        console.print(table)
        steps = sum(steps_of(job) - steps_done(job) for job in self.todo)
        console.print(
            f"{len(self.todo)} processes to run, {steps:,} training steps, about "
            f"{core_hours(self.todo):.1f} core-hours",
            highlight=False,
        )

    def carry_out(self, *, executor: str, workers: int | None, say: Callable[[str], None]) -> None:
        """Train what is to do, then write the pages of all claims.

        Args:
            executor: ``"local"``, processes of this machine, or ``"ray"``.
            workers: runs at once; None for as many as there are cores.
            say: is told the status of each claim.
        """
        with ray_cluster() if executor == "ray" else nullcontext((launch, cores())) as (start, there):
            try:
                with SweepProgress(self.todo, titles=self._titles()) as progress:
                    sweep(
                        self.todo,
                        workers=there if workers is None else workers,
                        progress=progress,
                        start=start,
                    )
            finally:
                # After Ctrl-C, too: what is finished is told, and the rest is listed as holes.
                self._write(say)

    def _titles(self) -> dict[str, str]:
        shared = {job.name: f"acquisition, seed {job.config.seed}" for job in self.todo if job.acquires}
        runs = {run.job.name: f"{run.claim.name} {run.method.name}, seed {run.seed}" for run in self.planned}
        return shared | runs

    def _write(self, say: Callable[[str], None]) -> None:
        for claim in self.claims:
            runs = [run for run in self.planned if run.claim is claim]
            status = write_claim(claim, runs, experiments=self.experiments, source=self.source)
            say(f"{claim.name}: {status} ({self.experiments / claim.folder / README})")
        write_overview(self.experiments / README, self.experiments)


def look_up(
    name: str,
    *,
    scale: str,
    seeds: int,
    only: Sequence[str],
    refresh: bool,
    runs: Path,
    experiments: Path,
) -> Reproduction:
    """Return what there is of a claim, or of all, and what is to do.

    Args:
        name: of the claim, or ``"all"``.
        scale: name of a preset.
        seeds: how many of every method.
        only: methods that alone are trained; all if empty.
        refresh: whether runs of other code are trained again.
        runs: folder of the runs.
        experiments: folder of the claims' results.

    Raises:
        ValueError: for what is not known, with the nearest, and for pages and results that are damaged and
            could not be written after the training.
    """
    named, source = claims_named(name), source_hash()
    require_choice("scale", scale, PRESETS)
    claims = [claim for claim in named if scale in claim.scales]
    if not claims:
        scales = ", ".join(named[0].scales)
        raise ValueError(f"claim {name!r} is trained at scale {scales} alone, not at {scale}")
    _rehearse_pages(claims, experiments)
    methods = sorted({method.name for claim in claims for method in claim.methods})
    wanted = {require_choice("method", method, methods) for method in only or methods}
    planned = plan(claims, scale=scale, seeds=seeds, runs=runs, source=source, also=only)
    records = recorded(planned, experiments=experiments)
    left = [run for run in planned if key_of(run) not in records and run.method.name in wanted]
    return Reproduction(
        claims=claims,
        planned=planned,
        records=records,
        todo=jobs_to_do(left, refresh=refresh),
        source=source,
        experiments=experiments,
    )


def _rehearse_pages(claims: Sequence[Claim], experiments: Path) -> None:
    """Raise ValueError where a README lacks its marks, or a status is damaged."""
    for claim in claims:
        between(readme_of(claim, experiments), marks=MARKS, content="")
    overview(experiments)
