"""Tune every method on split 0, then judge each on the five splits: one process a job, one thread a process.

    python experiments/12_activity/run.py [--only cram ssm] [--splits 0 1] [--jobs 2]

Needs the data (folder named by TORCHCRAM_DATA, see docs/irregular_series.md) and the extra ``tune``. Finished
jobs are skipped, trials of an interrupted tuning are kept. Everything goes to ``runs/12_activity/``;
``collect.py`` makes tables and figures of it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torchcram.series.comparison.study import Study, main

HERE = Path(__file__).parent
STUDY = Study(problem="activity", runs=Path("runs") / HERE.name)

if __name__ == "__main__":
    main(STUDY, script=Path(__file__), say=partial(print, flush=True))
