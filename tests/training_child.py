"""A process that trains a run and stops at a named moment, so that it can be killed exactly there.

A server imports everything once and reads the sources for their hash, and every child is forked from it: that
takes longer than such a run.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # optimizers import it when the first one is made

from tiny_runs import tiny_config
from torchcram.runs import tensor_file
from torchcram.runs.source import source_hash
from torchcram.training import checkpoint, loop, summary
from torchcram.training.trainer import Trainer

MOMENTS = {
    "step": (Trainer, "train_step"),
    "file": (tensor_file, "save_file"),
    "place": (checkpoint, "_put_in_place"),
    "midway": (loop, "evaluate_midway"),
    "final": (summary, "evaluate_fully"),
    "map": (summary, "route_map"),
}
# Kept for all children.
source_hash()


def start(changes: dict[str, Any], out: Path, moment: str, number: int) -> BaseProcess:
    """Train a tiny run in a child that holds at the moment's call of that number."""
    return child(_train, changes, out, moment, number)


def child(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Call a function of a module in a child."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=arguments)
    with pytest.MonkeyPatch.context() as patch:
        # Before Python 3.13 the server does not take over where its parent looks for modules.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        process.start()
    return process


def stop_at(changes: dict[str, Any], out: Path, moment: str, number: int, how: signal.Signals) -> BaseProcess:
    """Train until the moment, then send the signal."""
    ready = ready_file(out)
    process = start(changes, out, moment, number)
    deadline = time.monotonic() + 600
    while not ready.exists():
        assert process.is_alive(), said_by(out).read_text()
        assert time.monotonic() < deadline, "the child never came to its moment"
        time.sleep(0.02)
    ready.unlink()
    assert process.pid is not None
    os.kill(process.pid, how)
    return process


def exit_code(process: BaseProcess) -> int | None:
    """Wait for the end."""
    process.join(600)
    return process.exitcode


def said_by(out: Path) -> Path:
    """Where the child's messages go."""
    return out.with_name("said.txt")


def ready_file(out: Path) -> Path:
    """What the child leaves when it has come to its moment."""
    return out.with_name("ready")


def _train(changes: dict[str, Any], out: Path, moment: str, number: int) -> None:
    os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(1)
    _redirect(said_by(out))
    # As in a terminal: a shell that runs the tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _hold_at(*MOMENTS[moment], number=number, hold=lambda: _hold(ready_file(out)))
    try:
        loop.train(tiny_config(**changes), out=out, show_progress=True, resume=True)
    except KeyboardInterrupt:
        sys.exit(130)


def _redirect(said: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)


def _hold(ready: Path) -> None:
    # pause() returns once a handler has run: that of the interruption, or else of the alarm.
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(60)
    ready.touch()
    signal.pause()


def _hold_at(owner: Any, name: str, *, number: int, hold: Callable[[], None]) -> None:
    real, calls = getattr(owner, name), []

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == number:
            hold()
        return real(*arguments, **options)

    setattr(owner, name, wrapped)
