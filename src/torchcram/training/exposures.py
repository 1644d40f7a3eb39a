"""How often each recurring pattern has been asked for, and whether such a query still read: the raw data
of the consolidation curve.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchcram.accounting import any_layer
from torchcram.models.sequence import ModelOutput
from torchcram.ops.collective import world_sum
from torchcram.tasks.base import Task, skippable_steps
from torchcram.types import Batch

EDGES: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


class ExposureCounter:
    """Counts the queries for each pattern, and since routing began, by exposures so far, how many of them
    read.

    Args:
        task: says how many patterns recur and which steps ask for one; a task without ``patterns`` counts
            nothing.
    """

    def __init__(self, task: Task):
        self.task, patterns = task, getattr(task, "patterns", 0)
        self.exposures = torch.zeros(patterns, dtype=torch.long)
        self.queries = torch.zeros(patterns, len(EDGES), dtype=torch.long)
        self.reads = torch.zeros(patterns, len(EDGES), dtype=torch.long)

    @torch.no_grad()
    def count(self, batch: Batch, output: ModelOutput, *, routed: bool) -> None:
        """Take note of a training step; the exposures of a pattern are those of earlier steps."""
        if not len(self.exposures) or "pattern" not in batch.info:
            return
        recurring = skippable_steps(self.task, batch) & (batch.info["pattern"] >= 0)
        pattern = batch.info["pattern"][recurring].cpu()
        if routed:
            read = any_layer([block.decision for block in output.blocks if block.decision is not None])[
                recurring
            ].cpu()
            bins = torch.bucketize(self.exposures[pattern], torch.tensor(EDGES), right=True) - 1
            place = pattern * len(EDGES) + bins
            self.queries += _world(torch.bincount(place, minlength=self.queries.numel()), batch).view_as(
                self.queries
            )
            self.reads += _world(torch.bincount(place[read], minlength=self.reads.numel()), batch).view_as(
                self.reads
            )
        self.exposures += _world(torch.bincount(pattern, minlength=len(self.exposures)), batch)

    def record(self) -> dict[str, Any]:
        """Return the counts as a line of the metrics, a list of bins for each pattern; the last bin is
        open, its upper edge only closes the list.
        """
        return {
            "edges": [*EDGES, EDGES[-1] * 2],
            "queries": self.queries.tolist(),
            "reads": self.reads.tolist(),
        }

    def state_dict(self) -> dict[str, list[int]]:
        """Return all counts as plain numbers."""
        return {
            "exposures": self.exposures.tolist(),
            "queries": self.queries.tolist(),
            "reads": self.reads.tolist(),
        }

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.exposures, self.queries, self.reads = (
            torch.tensor(state[name], dtype=torch.long) for name in ("exposures", "queries", "reads")
        )


def _world(counts: Tensor, batch: Batch) -> Tensor:
    return world_sum(counts.to(batch.gap.device)).cpu()
