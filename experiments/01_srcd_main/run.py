"""Train every run of this claim: one process a run, one thread a process, as many at once as there are cores.

    python experiments/01_srcd_main/run.py [--only demo] [--seeds 0 1 2] [--jobs 2] [--again]

The time of the demo runs is a goal, so they come first, one after the other, with all cores. Finished runs
are skipped (also those that ``results.csv`` holds with the present configuration, unless ``--again``),
interrupted ones are resumed; then CRAM's runs are studied (calibration; at demo, zero-shot overrides). Runs
and logs go to ``runs/01_srcd_main/``; ``collect.py`` makes the tables of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torchcram.reproduce.results import load_rows
from torchcram.training.presets import resolve

HERE = Path(__file__).parent
RUNS = Path("runs") / HERE.name

# Configuration -> seeds, most wanted first.
PLAN: dict[str, tuple[int, ...]] = {
    "demo": (0, 1, 2, 3, 4),
    "full": (0, 1, 2),
    "demo_override": (0, 1, 2),
    "demo_transformer": (0, 1, 2, 3, 4),
    "demo_transformer_wide": (0, 1, 2, 3, 4),
    "demo_ssm": (0, 1, 2),
    "full_transformer": (0, 1, 2),
    "full_transformer_wide": (0, 1, 2),
    "full_ssm": (0, 1, 2),
}
# Runs whose calibration is studied -> risk tolerances beside their own.
STUDIED: dict[str, tuple[float, ...]] = {"demo": (0.01, 0.05), "full": ()}
# Runs whose time counts: alone, on all cores.
TIMED = ("demo",)


def committed(name: str, seed: int) -> bool:
    """Whether the results hold this run, by the configuration as it is now."""
    now = resolve(str(HERE / "configs" / f"{name}.yaml")).updated("seed", seed).digest()
    return any(row["config_hash"] == now for row in load_rows(HERE / "results.csv"))


def run_one(name: str, seed: int, *, threads: int) -> None:
    """Train one run, unless it is finished."""
    out = RUNS / f"{name}-seed{seed}"
    if (out / "summary.json").exists():
        return
    command = [
        sys.executable,
        "-m",
        "torchcram",
        "train",
        str(HERE / "configs" / f"{name}.yaml"),
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    command += ["--resume"] if (out / "config.json").exists() else []
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / f"{name}-seed{seed}.log").open("a") as log:
        code = subprocess.run(
            command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=False
        ).returncode
    print(
        f"{name} seed {seed}: {'finished' if code == 0 else f'exit status {code}, see {log.name}'}",
        flush=True,
    )


def study_one(name: str, seed: int) -> None:
    """Measure the conformal guarantee of a finished run of CRAM at its own tolerance; at demo, also at two
    looser ones, and how the model does zero-shot on overridden keys."""
    out = RUNS / f"{name}-seed{seed}"
    if name not in STUDIED or not (out / "summary.json").exists():
        return
    own = resolve(str(HERE / "configs" / f"{name}.yaml")).evaluation.risk_tolerance
    tolerances = [f"--tolerance={tolerance}" for tolerance in (own, *STUDIED[name])]
    commands = {"calibration_study.json": ["calibrate", str(out), *tolerances]}
    if name == "demo":
        commands["zero_shot.json"] = ["evaluate", str(out), "--set", "override=0.2", "--queries", "20000"]
    for file, command in commands.items():
        if not (out / file).exists():
            full = [sys.executable, "-m", "torchcram", *command, "--json", str(out / file)]
            subprocess.run(
                full, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
            )


def main() -> None:
    """Run the plan, or the part of it that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(PLAN), help="configurations; all if not given")
    parser.add_argument("--seeds", nargs="*", type=int, help="seeds; those of the plan if not given")
    parser.add_argument("--again", action="store_true", help="train also what the results hold")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    asked = parser.parse_args()
    wanted = [
        (name, seed)
        for name in asked.only or PLAN
        for seed in (PLAN[name] if asked.seeds is None else asked.seeds)
    ]
    wanted = [job for job in wanted if asked.again or not committed(*job)]
    for name, seed in wanted:
        if name in TIMED:
            run_one(name, seed, threads=os.cpu_count() or 1)
    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(lambda job: run_one(*job, threads=1), [job for job in wanted if job[0] not in TIMED]))
        list(pool.map(lambda job: study_one(*job), wanted))


if __name__ == "__main__":
    main()
