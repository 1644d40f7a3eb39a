"""Ask benchmark questions one after the other, and keep what was answered."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from torchcram.bench.measurement import Measurement
from torchcram.bench.questions import QUESTIONS
from torchcram.bench.setting import Setting
from torchcram.strict import require_choice


def ask(questions: Sequence[str], *, setting: Setting, file: Path | None = None, show: Callable[[Measurement], None] | None = None) -> list[Measurement]:
    """Answer questions, all of them if none is named; the file holds what is answered so far, also after Ctrl-C.

    Args:
        questions: names of :data:`torchcram.bench.questions.QUESTIONS`.
        setting: where and how much to measure.
        file: JSON file for the records.
        show: called with each line as soon as it is there.

    Raises:
        ValueError: for an unknown question, before anything is measured.
        OSError: if the file cannot be written, before anything is measured.
    """
    chosen = [require_choice("question", name, QUESTIONS) for name in questions] or list(QUESTIONS)
    found: list[Measurement] = []
    _keep(found, file)
    for name in chosen:
        for measurement in QUESTIONS[name](setting):
            found.append(measurement)
            _keep(found, file)
            if show is not None:
                show(measurement)
    return found


def machine() -> dict[str, Any]:
    """Return what a timing depends on, apart from the code."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _keep(found: list[Measurement], file: Path | None) -> None:
    if file is not None:
        file.write_text(json.dumps([measurement.record() for measurement in found], indent=1) + "\n")
