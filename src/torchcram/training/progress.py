"""What a training run shows while it runs: phase, loss, accuracies, read rates, time left."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress(AbstractContextManager["TrainingProgress"]):
    """A live line on a terminal; one printed line per evaluation everywhere.

    Args:
        steps: steps of the whole run.
        done: steps done before (a resumed run).
        show: False for silence.
    """

    def __init__(self, *, steps: int, done: int = 0, show: bool = True):
        self.console = Console(stderr=True, quiet=not show)
        times = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        columns = (
            TextColumn("[bold]{task.description:<11}"),
            BarColumn(),
            *times,
            TextColumn("{task.fields[note]}"),
        )
        self.progress = Progress(
            *columns, console=self.console, disable=not (show and self.console.is_terminal), transient=True
        )
        self.task = self.progress.add_task("start", total=steps, completed=done, note="")
        self.phase = ""

    def __enter__(self) -> TrainingProgress:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def trained(self, step: int, record: dict[str, Any] | None, phase: str) -> None:
        """Show a training step; ``record`` is its line of the metrics, if it has one."""
        if phase != self.phase:
            self.console.print(f"[bold]{phase}[/bold] from step {step}")
            self.phase = phase
        self.progress.update(self.task, completed=step, description=phase)
        if record is not None:
            losses = " ".join(f"{name} {value:.3f}" for name, value in record["losses"].items())
            self.progress.update(self.task, note=f"reads {record['any_layer_read_rate']:.1%} | {losses}")

    def evaluated(self, record: dict[str, Any]) -> None:
        """Show an evaluation."""
        layers = " ".join(f"{rate:.1%}" for rate in record["read_rate_by_layer"])
        scores = " ".join(
            f"{name} {value:.1%}" for name, value in record["accuracy"].items() if name != "query"
        )
        floor = f" (floor {record['any_layer_floor']:.2%})" if "any_layer_floor" in record else ""
        error = f" | MSE {record['dynamics_mse']:.4f}" if "dynamics_mse" in record else ""
        self.say(
            f"step {record['step']:>5} | reads {record['any_layer_read_rate']:.2%}{floor}, by "
            f"layer {layers} | {scores}{error}"
        )

    def say(self, text: str) -> None:
        """Show a line."""
        self.console.print(text, highlight=False, soft_wrap=True)
