"""Train CRAM and a dense Transformer of equal size on State of the Union text: one process a run, one thread
a process.

    python experiments/09_text_lm/run.py [--only cram dense] [--seeds 0 1 2] [--jobs 2]
    python experiments/09_text_lm/run.py --only dense_rate_0.001 --seeds 0        # a pilot: any name of
    configs/

Finished runs are skipped, those of ``finished/`` with the same configuration, too. Runs and logs go to
``runs/09_text_lm/``; ``collect.py`` makes the table, the figure and the coloured text of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
RUNS = Path("runs") / HERE.name
NAMES, SEEDS = ("cram", "dense"), (0, 1, 2)


def recorded(name: str, seed: int) -> bool:
    """Whether ``finished/`` holds this run with the configuration as it is now."""
    file, now = (
        HERE / "finished" / f"{name}-seed{seed}.json",
        json.loads((HERE / "configs" / f"{name}.json").read_text()),
    )
    return (
        file.exists()
        and {key: value for key, value in json.loads(file.read_text())["config"].items() if key in now} == now
    )


def run_one(name: str, seed: int, steps: int | None) -> None:
    """Train one run, unless it is finished."""
    out = RUNS / f"{name}-seed{seed}"
    if (out / "summary.json").exists() or (steps is None and recorded(name, seed)):
        return
    command = [
        sys.executable,
        str(HERE / "train.py"),
        str(HERE / "configs" / f"{name}.json"),
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    command += [] if steps is None else ["--steps", str(steps)]
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / f"{name}-seed{seed}.log").open("a") as log:
        code = subprocess.run(
            command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
        ).returncode
    print(
        f"{name} seed {seed}: {'finished' if code == 0 else f'exit status {code}, see {log.name}'}",
        flush=True,
    )


def main() -> None:
    """Run the plan, or the part of it that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=sorted(file.stem for file in (HERE / "configs").glob("*.json")),
        default=NAMES,
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--steps", type=int, help="for a trial")
    asked = parser.parse_args()
    with ThreadPoolExecutor(asked.jobs) as pool:
        list(
            pool.map(
                lambda job: run_one(*job, asked.steps),
                [(name, seed) for seed in asked.seeds for name in asked.only],
            )
        )


if __name__ == "__main__":
    main()
