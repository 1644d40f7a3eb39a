"""One process a folder: two that write the same run would mix their lines and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there. The lock ends with the process, however
    that ends; its file stays.

    Raises:
        ValueError: if another process holds it.
        OSError: if the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another process is at {folder}: wait until it has ended, or choose another folder with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()
