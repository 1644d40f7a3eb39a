"""What a training run shows while it runs: phase, loss, accuracies, read rates, time left."""

from __future__ import annotations

from typing import Any

from rich.progress import TextColumn
from rich.text import Text

from torchcram.runs.progress import LiveProgress


class TrainingProgress(LiveProgress):
    """A live line on a terminal; one printed line per evaluation everywhere.

    Args:
        steps: steps of the whole run.
        done: steps done before (a resumed run).
        show: False for silence.
    """

    def __init__(self, *, steps: int, done: int = 0, show: bool = True):
        super().__init__(width=11, further=(TextColumn("{task.fields[note]}", markup=False),), show=show)
        self.task = self.progress.add_task("start", total=steps, completed=done, note="")
        self.phase = ""

    def trained(self, step: int, record: dict[str, Any] | None, phase: str) -> None:
        """Show a training step; ``record`` is its line of the metrics, if it has one."""
        if phase != self.phase:
            self.say(Text.assemble((phase, "bold"), f" from step {step}"))
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
