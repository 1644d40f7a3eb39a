"""The command line as a user calls it, in this process or in one of its own; a run of a second."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from torchcram.cli import main

TINY = {
    "name": "tiny",
    "task": {"kind": "srcd", "length": 40, "patterns": 6, "key_size": 4, "values": 4},
    "model": {"d_model": 16, "options": {"slots": 32, "state_size": 8}},
    "controller": {"acquire_steps": 3},
    "training": {"steps": 6, "tokens_per_step": 320, "evaluate_every": 3, "checkpoint_every": 2},
    "evaluation": {"queries": 20, "sequences_midway": 4, "calibration_sequences": 0},
}


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["torchcram", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def shell(
    *arguments: str | bytes, preexec_fn: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own, with more environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "torchcram", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        preexec_fn=preexec_fn,
    )
