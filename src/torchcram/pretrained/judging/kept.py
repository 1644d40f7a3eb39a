"""The parts of a judgement on disk: each is written as soon as it is known, and taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torchcram.pretrained.retrofit.install import retrofit_of
from torchcram.pretrained.retrofit.saving import base_digest, memory_state
from torchcram.runs.files import load_json, write_json
from torchcram.runs.tensor_file import checksum

FILE = "judged.json"
PartT = TypeVar("PartT")


class Kept:
    """The parts of a judgement on disk, beside what else the file says.

    Args:
        folder: that holds the file; None for none.
        model: retrofitted; a part holds for its memories and its price.
        common: what all parts depend on.
    """

    def __init__(self, folder: Path | None, model: Any, common: Mapping[str, Any]):
        self.file = None if folder is None else folder / FILE
        retrofit = retrofit_of(model)
        base = retrofit.base.get("digest") or base_digest(model)
        told = (
            type(model).__name__,
            base,
            checksum(memory_state(model)),
            retrofit.settings.model_dump_json(),
        )
        digest = hashlib.sha256(" ".join(told).encode())
        self.common = {"model": digest.hexdigest(), **common}

    def part(self, name: str, asked: Mapping[str, Any], work: Callable[[], PartT]) -> PartT:
        """Return a part that is there already, or work it out and write it."""
        identity = {**self.common, **asked}
        there = self._there()
        if there.get(name, {}).get("of") == identity:
            result: PartT = there[name]["found"]
            return result
        found = work()
        if self.file is not None:
            write_json(self.file, {**self._there(), name: {"of": identity, "found": found}})
        return found

    def _there(self) -> dict[str, Any]:
        if self.file is None or not self.file.is_file():
            return {}
        return load_json(self.file, mend="delete it, and judge again")
