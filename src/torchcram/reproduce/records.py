"""Runs that need not be trained again, because the results of a claim, its own or another's, hold them: of
the same configuration and the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchcram.reproduce.claim import Row
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.plan import PlannedRun
from torchcram.reproduce.results import RESULTS, load_rows
from torchcram.reproduce.run_figures import COURSE_STEPS, COURSE_VALUES

# Claim, method and seed.
Key = tuple[str, str, int]


def key_of(run: PlannedRun) -> Key:
    """Return what names a run within a plan."""
    return run.claim.name, run.method.name, run.seed


def recorded(planned: Sequence[PlannedRun], *, experiments: Path) -> dict[Key, Row]:
    """Return the rows of the planned runs that the results of any claim hold, but are not finished on this
    machine.

    A run that is measured against a rival is recorded together with it or not at all: what is made of both
    needs both on one machine.

    Raises:
        ValueError: if a results file is damaged.
    """
    rows = _rows(experiments, {claim.folder for claim in (*CLAIMS.values(), *(run.claim for run in planned))})
    left = {
        key_of(run): (run, rows.get((run.job.config.digest(), run.job.source)))
        for run in planned
        if not run.job.finished
    }
    fitting = {
        key: _fit(run, row) for key, (run, row) in left.items() if row is not None and _says_enough(run, row)
    }
    pairs = [
        (key_of(run), (run.claim.name, run.method.rival, run.seed)) for run in planned if run.method.rival
    ]
    torn = {key for pair in pairs if not all(key in fitting for key in pair) for key in pair}
    return {key: row for key, row in fitting.items() if key not in torn}


def _rows(experiments: Path, folders: set[str]) -> dict[tuple[str, str], Row]:
    """Return what the results hold by configuration and code; of several rows the one that says most."""
    rows = [row for folder in sorted(folders) for row in load_rows(experiments / folder / RESULTS)]
    rows = [row for row in rows if row.get("config_hash") and row.get("source")]
    return {
        (row["config_hash"], row["source"]): row
        for row in sorted(rows, key=lambda row: bool(row.get(COURSE_STEPS)))
    }


def _says_enough(run: PlannedRun, row: Row) -> bool:
    """Whether a row, maybe of another claim, has what this claim makes of it: the course over training for
    a picture that shows it.
    """
    return not run.claim.picture.over_training(run.method.name) or bool(row.get(COURSE_STEPS))


def _fit(run: PlannedRun, row: Row) -> Row:
    """Return a row as this claim would have made it."""
    dropped = () if run.claim.picture.over_training(run.method.name) else (COURSE_STEPS, COURSE_VALUES)
    return {
        **{name: value for name, value in row.items() if name not in dropped},
        "scale": run.scale,
        "method": run.method.name,
    }
