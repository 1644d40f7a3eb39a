"""The lines that a run records on its way, ``metrics.jsonl``: one object a line, each with its ``kind`` and
its training ``step``.

A line counts once its line feed is written. What follows the last line feed was cut off, as in a killed
process, and is left out by everybody who reads. Anything else that is no such object is damage.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from torchcram.runs.files import MEND, finite, unwritten

Record = dict[str, Any]

# Bytes at the end of a file in which its last complete line is looked for.
TAIL = 65_536


def append_line(file: Path, record: Record) -> None:
    """Append one line.

    Raises:
        OSError: if it cannot be written; the lines before are kept.
    """
    try:
        with file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(finite(record), allow_nan=False) + "\n")
    except OSError as error:
        raise unwritten(file, error) from error


def load_lines(file: Path) -> tuple[list[Record], bool]:
    """Return the complete lines, none if there is no file, and whether a last one was cut off.

    Raises:
        ValueError: if a complete line is damaged; the message names the file and the line.
    """
    *lines, rest = file.read_bytes().split(b"\n") if file.is_file() else [b""]
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(line))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file} is damaged in line {number} ({error!r}): {MEND}") from None
    return records, bool(rest)


def mark(file: Path) -> Record:
    """Return length and SHA-256 of a file, for :func:`text_until`; it is on the disk from then on."""
    if not file.is_file():
        return {"bytes": 0, "sha256": sha256(b"").hexdigest()}
    with file.open("rb") as handle:
        content = handle.read()
        os.fsync(handle.fileno())
    return {"bytes": len(content), "sha256": sha256(content).hexdigest()}


def text_until(file: Path, mark: Record) -> str:
    """Return what a file held when it was marked; later lines will be computed again.

    Raises:
        ValueError: if it no longer holds that: it is missing, cut or damaged.
    """
    content = file.read_bytes()[: mark["bytes"]] if file.is_file() else b""
    if sha256(content).hexdigest() != mark["sha256"]:
        # Names the line, where a line is no line any more.
        load_lines(file)
        raise ValueError(
            f"{file} is missing or damaged (it does not hold what it held when the checkpoint was written): "
            f"{MEND}"
        )
    return content.decode("utf-8")


def last_step(file: Path) -> int | None:
    """Return the step of the last complete line, for a display; None if there is none. Only the end of the
    file is read.
    """
    if not file.is_file():
        return None
    with file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - TAIL))
        lines = handle.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            return int(_record(line)["step"])
        except (ValueError, TypeError, KeyError):
            continue
    return None


def _record(line: bytes) -> Record:
    record = json.loads(line)
    return {**record, "kind": str(record["kind"]), "step": int(record["step"])}
