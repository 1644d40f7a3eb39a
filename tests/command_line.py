"""The command line as a user calls it, in this process or in one of its own; a run of a second."""

import subprocess
import sys

import pytest

import fresh_process
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


def shell(*arguments: str, before: str = "") -> subprocess.CompletedProcess:
    """Run the command line in a process of its own, after some lines of code."""
    program = "import runpy; runpy.run_module('torchcram', run_name='__main__', alter_sys=True)"
    return fresh_process.run(f"{before}\n{program}", *arguments, strict=False)
