"""The folder of an analysis: its settings first, one file per finished stage, so that an interrupted analysis
goes on where it was.

Files are written beside themselves and then renamed: what is there is whole.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from torchcram.training.run_dir import RunDir

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
            before = self.files.read_json(SETTINGS)
            changed = sorted(key for key in plain.keys() | before.keys() if plain.get(key) != before.get(key))
            if changed:
                raise ValueError(
                    f"{path} holds another analysis ({', '.join(changed)} differ): choose another "
                    "folder with --out, or delete it"
                )
            return
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(
                f"{path} exists and is no analysis (it has no {SETTINGS}): choose another folder with --out"
            )
        (path / STAGES).mkdir(parents=True, exist_ok=True)
        self.files.write_json(SETTINGS, plain)

    def load(self, stage: str) -> Any:
        """Return what a stage kept, or None if it kept nothing.

        Raises:
            ValueError: if its file is damaged.
        """
        file = self._file(stage)
        if not file.exists():
            return None
        try:
            # Mapped, not read: of the sums of all layers only those in use are in memory.
            return torch.load(file, weights_only=True, mmap=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise ValueError(
                f"{file} is damaged ({str(error).splitlines()[0]}): delete it, and this stage is "
                "computed again"
            ) from None

    def keep(self, stage: str, content: Any) -> None:
        """Keep tensors, numbers and words of a stage, all of them or nothing."""
        file = self._file(stage)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        torch.save(content, draft)
        draft.replace(file)

    def forget(self, stage: str) -> None:
        """Remove what a stage kept."""
        self._file(stage).unlink(missing_ok=True)

    def _file(self, stage: str) -> Path:
        return self.path / STAGES / f"{stage}.pt"
