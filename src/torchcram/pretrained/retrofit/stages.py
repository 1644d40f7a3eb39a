"""The stages of a making, each kept on disk as it ends, so that what was interrupted goes on behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.retrofit.processes import ALONE, Processes
from torchcram.pretrained.retrofit.saving import load_memories, memory_state
from torchcram.pretrained.retrofit.unread import give_up
from torchcram.runs.files import draft_of
from torchcram.runs.tensor_file import load_tensors, write_tensors

FURTHER = "further."
# A stage that lets layers give up their reads tells which, under this name.
UNREAD = "unread"


class Stages:
    """Stages of one model.

    Args:
        model: retrofitted.
        place: folder that keeps them; None keeps nothing.
        seed: of what they draw.
        processes: that do them together; the first one writes, and all see what it wrote.
    """

    def __init__(self, model: Any, place: Path | None, *, seed: int, processes: Processes = ALONE):
        self.model, self.place, self.seed, self.processes = model, place, seed, processes

    def generator(self, stage: int) -> torch.Generator:
        """Each stage draws for itself, so that a resumed one draws the same."""
        return torch.Generator().manual_seed(1000 * self.seed + stage)

    def file(self, name: str) -> Path | None:
        """Return where a stage keeps something."""
        return None if self.place is None else self.place / name

    def stage(
        self,
        name: str,
        progress: AnalysisProgress,
        total: int,
        work: Callable[[Callable[[int], None]], dict[str, Tensor]],
        *,
        unit: str = "tokens",
    ) -> dict[str, Tensor]:
        """Do a stage, or take up what it left: the memories, and what later stages need.

        Raises:
            ValueError: if what it left is damaged.
        """
        file = self.file(f"{name}.safetensors")
        if file is not None and file.is_file():
            progress.say(f"{name}: taken up from {file}")
            return self._taken_up(file)
        # Steps are taken together; tokens and documents are shared.
        share = total if unit == "steps" else -(-total // self.processes.count)
        results = self._same(work(progress.stage(name, total=share, unit=unit)))
        if file is not None and self.processes.first:
            draft = draft_of(file)
            further = {f"{FURTHER}{key}": value for key, value in results.items()}
            write_tensors(draft, memory_state(self.model) | further)
            draft.replace(file)
        self.processes.wait()
        return results

    def _same(self, results: dict[str, Tensor]) -> dict[str, Tensor]:
        """Have all processes stand where the first one does."""
        if self.processes.count == 1:
            return results
        state = memory_state(self.model)
        self.processes.follow(*state.values())
        load_memories(self.model, state)
        plain = self.processes.told(lambda: {key: value.cpu() for key, value in results.items()})
        return {key: value.to(self.processes.device) for key, value in plain.items()}

    def _taken_up(self, file: Path) -> dict[str, Tensor]:
        try:
            kept = load_tensors(file)
        except ValueError as error:
            raise ValueError(
                f"{file} is damaged ({error}): delete it, and this stage is done again"
            ) from None
        further = {key.removeprefix(FURTHER): kept.pop(key) for key in list(kept) if key.startswith(FURTHER)}
        if UNREAD in further:
            give_up(self.model, further[UNREAD].tolist())
        load_memories(self.model, kept)
        return further
