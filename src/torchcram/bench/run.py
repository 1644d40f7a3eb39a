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
from torchcram.runs.environment import environment
from torchcram.strict import require_choice

Record = dict[str, Any]
# What a measurement asked.
ASKED = ("question", "device", "length", "read_rate", "peer")


def ask(
    questions: Sequence[str],
    *,
    setting: Setting,
    file: Path | None = None,
    show: Callable[[Measurement], None] | None = None,
) -> list[Record]:
    """Answer questions, all of them if none is named; the file holds what is answered so far, also after
    Ctrl-C.

    What else the file holds stays (other questions, devices, lengths, peers): a long benchmark may be run in
    parts. Beside it, in ``*.machine.json``, stands when, on what and with which code each question was
    measured.

    Args:
        questions: names of :data:`torchcram.bench.questions.QUESTIONS`.
        setting: where and how much to measure.
        file: JSON file for the records.
        show: called with each line as soon as it is there.

    Returns:
        The records of the file; without one, those of this call.

    Raises:
        ValueError: for an unknown question, a longest sequence that leaves nothing of one, or a damaged file,
            before anything is measured.
        OSError: if the file cannot be written, before anything is measured.
    """
    chosen = [require_choice("question", name, QUESTIONS) for name in questions] or list(QUESTIONS)
    setting.require_lengths(questions)
    measurements, machines = _loaded(file), _loaded(machine_file(file))
    _keep(measurements, machines, file)
    for name in chosen:
        for measurement in QUESTIONS[name](setting):
            measurements = _with(measurement.record(), measurements)
            machines = [
                record
                for record in machines
                if (record["question"], record["device"]) != (name, setting.name)
            ]
            machines.append({"question": name, "device": setting.name, **machine()})
            _keep(measurements, _sorted(machines), file)
            if show is not None:
                show(measurement)
    return measurements


def machine() -> dict[str, Any]:
    """Return what a timing depends on: processor, threads, versions, commit, date."""
    here = environment()
    return {
        "date": here["started"][:10],
        "commit": here["commit"],
        "processor": _processor(),
        "threads": here["threads"],
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def machine_file(file: Path | None) -> Path | None:
    """Return where it is written how the measurements of a file came about."""
    return None if file is None else file.with_suffix(".machine.json")


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _with(fresh: Record, records: list[Record]) -> list[Record]:
    """Put a record in the place of the one that asked the same, or behind the others of its question."""
    asked = [[record.get(name) for name in ASKED] for record in records]
    place = asked.index(mine) if (mine := [fresh[name] for name in ASKED]) in asked else len(records)
    return _sorted([*records[:place], fresh, *records[place + 1 :]])


def _sorted(records: list[Record]) -> list[Record]:
    """By the order of the questions; those of one question stay as they came."""
    order = list(QUESTIONS)
    return sorted(
        records,
        key=lambda record: order.index(record["question"]) if record["question"] in order else len(order),
    )


def _loaded(file: Path | None) -> list[Record]:
    if file is None or not file.exists():
        return []
    try:
        records = json.loads(file.read_text())
        return [record for record in records if record["question"] and record["device"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{file} holds no measurements of torchcram bench: name another file, or delete it"
        ) from None


def _keep(measurements: list[Record], machines: list[Record], file: Path | None) -> None:
    for place, records in ((file, measurements), (machine_file(file), machines)):
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(records, indent=1) + "\n")
