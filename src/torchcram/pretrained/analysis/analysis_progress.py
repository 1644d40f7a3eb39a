"""What an analysis shows while it runs: the stage, and how far it is."""

from __future__ import annotations

from collections.abc import Callable

from torchcram.runs.progress import LiveProgress


class AnalysisProgress(LiveProgress):
    """A live line on a terminal, one printed line per stage everywhere.

    Args:
        show: False for silence.
    """

    def __init__(self, *, show: bool = True):
        super().__init__(width=26, show=show)

    def stage(self, name: str, *, total: int, unit: str = "tokens") -> Callable[[int], None]:
        """Begin a stage; return what is to be told of each finished part."""
        self.say(f"{name}: {total:,} {unit}")
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        task = self.progress.add_task(name, total=total)
        return lambda done: self.progress.advance(task, done)

    def note(self, text: str) -> None:
        """Say beside the live line how the stage stands."""
        for task in self.progress.tasks:
            name = task.description.split(":")[0]
            self.progress.update(task.id, description=f"{name}: {text}" if text else name)
