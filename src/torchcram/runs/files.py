"""Files that are there as a whole or not at all, and errors that name the file.

A file is written beside itself and then renamed, so that a crash or a full disk leaves the older one. Text is
UTF-8, whatever the locale says.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

# The key of the checksum of a sealed file.
SEAL = "sha256"
# What to do about a file that cannot be read: one alone, and one that a run cannot go on without.
RESTORE = "restore it from a copy, or delete it"
MEND = "restore it from a copy, or delete the run and start again"


def write_text(file: Path, text: str) -> None:
    """Write a text file, all of it or nothing.

    Raises:
        OSError: if it cannot be written; an older file is kept.
    """
    draft = draft_of(file)
    try:
        # A name that is no text, as of a folder, is written by its code.
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise unwritten(file, error) from error


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file, all of it or nothing; numbers that are not finite become null.

    Raises:
        OSError: if it cannot be written; an older file is kept.
    """
    write_text(file, json.dumps(finite(content), indent=1, allow_nan=False) + "\n")


def load_json(file: Path, *, mend: str = RESTORE) -> dict[str, Any]:
    """Return the object that a JSON file holds; ``mend`` is what to do if it is damaged.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else than an object.
    """
    content = _parsed(file, mend=mend)
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged (it holds a {type(content).__name__}, not an object): {mend}")
    return content


def load_json_list(file: Path) -> list[dict[str, Any]]:
    """Return the objects in the list that a JSON file holds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else.
    """
    content = _parsed(file, mend=RESTORE)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ValueError(f"{file} is damaged (it holds no list of objects): {RESTORE}")
    return content


def _parsed(file: Path, *, mend: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): {mend}") from None


def write_sealed(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its SHA-256 beside its other keys, for :func:`load_sealed`.

    Raises:
        OSError: if it cannot be written.
    """
    write_json(file, {**content, SEAL: _seal(content)})


def load_sealed(file: Path) -> dict[str, Any]:
    """Return the object that :func:`write_sealed` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if anything in it has changed.
    """
    content = load_json(file, mend=MEND)
    if content.pop(SEAL, None) != _seal(content):
        raise ValueError(f"{file} is damaged, or of another version (its checksum does not fit): {MEND}")
    return content


def _seal(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(finite(dict(content)), sort_keys=True).encode()).hexdigest()


def require_writable(file: Path | None) -> None:
    """Raise ValueError where a file that is written at the end cannot be written; None needs no place."""
    if file is None:
        return
    if file.is_dir():
        raise ValueError(f"cannot write {file}: it is a folder; name a file")
    if not file.parent.is_dir():
        raise ValueError(f"cannot write {file}: there is no folder {file.parent}")
    _require_permission(file, file if file.exists() else file.parent)


def require_place(folder: Path) -> None:
    """Raise ValueError where a folder is no folder, or neither is there nor can be made."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"cannot write into {folder}: {there} is no folder")
    _require_permission(folder, there)


def _require_permission(wanted: Path, there: Path) -> None:
    if not os.access(there, os.W_OK):
        raise ValueError(f"cannot write {wanted}: no permission to write {there}")


def draft_of(file: Path) -> Path:
    """Return where a file or folder is written before it takes its place."""
    return file.with_name(f".{file.name}.draft")


def unwritten(file: Path, error: OSError) -> OSError:
    """Return the error for a file that could not be written."""
    return OSError(f"cannot write {file}: {error.strerror or error}. Free some space, then use --resume")


def finite(content: Any) -> Any:
    """Return plain data with null for NaN and infinity, which JSON does not know."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
