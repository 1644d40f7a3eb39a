"""One run in a process of its own, with one thread: ``python -m torchcram.reproduce.worker CONFIG FOLDER
SOURCE [--start FOLDER] [--acquire]``.

What went wrong is the last line of its output, ``error: ...``, with exit status 2; an interruption, after
which it can go on, is 130.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from torchcram.runs.failure import ending_in_one_line
from torchcram.runs.source import source_hash
from torchcram.training.loop import acquire, train
from torchcram.training.presets import from_yaml


def work(arguments: Sequence[str]) -> None:
    """Train what the arguments say, or go on with it.

    Raises:
        ValueError: if the code is not the one that the run was planned with, or another process is at this
            run.
        FloatingPointError, OSError, KeyboardInterrupt: as :func:`torchcram.training.loop.train`.
    """
    parser = argparse.ArgumentParser(prog="torchcram.reproduce.worker")
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("source")
    parser.add_argument("--start", type=Path)
    parser.add_argument("--acquire", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.source != source_hash():
        raise ValueError(
            f"the code has changed since this run was planned (it is {source_hash()}, planned was "
            f"{asked.source}): start reproduce again"
        )
    torch.set_num_threads(1)
    config = from_yaml(asked.config)
    if asked.acquire:
        acquire(config, out=asked.folder, resume=True)
    else:
        train(config, out=asked.folder, resume=True, start=asked.start)


def main() -> None:
    """Work, and say in one line what went wrong."""
    # Ray blocks Ctrl-C in its workers, and what they start inherits that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    ending_in_one_line(lambda: work(sys.argv[1:]))


if __name__ == "__main__":
    main()
