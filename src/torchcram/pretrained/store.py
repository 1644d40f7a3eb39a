"""The folder of an analysis: its settings first, one file per finished stage, so that an interrupted analysis
goes on where it was.

Files are written beside themselves and then renamed: what is there is whole.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torchcram.pretrained.plain import T, from_plain, to_plain
from torchcram.runs.files import require_place
from torchcram.runs.run_dir import RunDir

SETTINGS, STAGES = "analysis.json", "stages"


class Store:
    """Stages on disk.

    Args:
        path: the folder; made if it is not there.
        identity: what the analysis depends on; a folder of another one is refused.

    Raises:
        ValueError: if the folder holds something else.
    """

    def __init__(self, path: Path, *, identity: dict[str, Any]):
        self.path, self.files = path, RunDir(path)
        plain = json.loads(json.dumps(identity))
        if (path / SETTINGS).exists():
            before = self.files.load_json(SETTINGS)
            changed = sorted(key for key in plain.keys() | before.keys() if plain.get(key) != before.get(key))
            if changed:
                raise ValueError(
                    f"{path} holds another analysis ({', '.join(changed)} differ): choose another "
                    "folder with --out, or delete it"
                )
            return
        require_analysis_or_nothing(path)
        (path / STAGES).mkdir(parents=True, exist_ok=True)
        self.files.write_json(SETTINGS, plain)

    def load(self, stage: str, kind: Callable[..., T]) -> T | None:
        """Return what a stage kept, or None if it kept nothing.

        Args:
            stage: its name.
            kind: type of what it kept; see :func:`~torchcram.pretrained.plain.from_plain`.

        Raises:
            ValueError: if its file is damaged, or was written by a version that kept something else.
        """
        saved = self._saved(stage)
        try:
            return None if saved is None else from_plain(kind, saved["content"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(stage, error) from None

    def seconds(self, stage: str) -> float:
        """Return how long a stage took that kept something.

        Raises:
            ValueError: if its file is damaged.
        """
        saved = self._saved(stage)
        assert saved is not None, f"{stage} kept nothing"
        return float(saved["seconds"])

    def keep(self, stage: str, content: Any, *, seconds: float = 0.0) -> None:
        """Keep what a stage computed, all of it or nothing.

        Args:
            stage: its name.
            content: dataclasses, lists and dictionaries of tensors, numbers and words.
            seconds: how long the stage took.
        """
        file = self._file(stage)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        torch.save({"content": to_plain(content), "seconds": seconds}, draft)
        draft.replace(file)

    def forget(self, stage: str) -> None:
        """Remove what a stage kept."""
        self._file(stage).unlink(missing_ok=True)

    def _file(self, stage: str) -> Path:
        return self.path / STAGES / f"{stage}.pt"

    def _saved(self, stage: str) -> Any:
        file = self._file(stage)
        try:
            # Mapped, not read: of the sums of all layers only those in use are in memory.
            return torch.load(file, weights_only=True, mmap=True) if file.exists() else None
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise self._damaged(stage, error) from None

    def _damaged(self, stage: str, error: Exception) -> ValueError:
        why = str(error).splitlines()[0]
        return ValueError(
            f"{self._file(stage)} is damaged ({why}): delete it, and this stage is computed again"
        )


def require_analysis_or_nothing(path: Path) -> None:
    """Raise ValueError where a path is something else than the folder of an analysis, or of one to come."""
    if (path / SETTINGS).exists():
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"{path} exists and is no analysis (it has no {SETTINGS}): choose another folder with --out"
        )
    require_place(path)
