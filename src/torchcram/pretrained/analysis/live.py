"""What an analysis shows while it runs: the stage, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class AnalysisProgress(AbstractContextManager["AnalysisProgress"]):
    """A live line on a terminal, one printed line per stage everywhere.

    Args:
        show: False for silence.
    """

    def __init__(self, *, show: bool = True):
        self.console = Console(stderr=True, quiet=not show)
        columns = (
            TextColumn("[bold]{task.description:<26}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(
            *columns, console=self.console, disable=not (show and self.console.is_terminal), transient=True
        )

    def __enter__(self) -> AnalysisProgress:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def stage(self, name: str, *, total: int, unit: str = "tokens") -> Callable[[int], None]:
        """Begin a stage; return what is to be told of each finished part."""
        self.console.print(f"{name}: {total:,} {unit}", highlight=False)
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        task = self.progress.add_task(name, total=total)
        return lambda done: self.progress.advance(task, done)
