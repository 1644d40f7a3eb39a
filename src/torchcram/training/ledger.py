"""What a training step read and learned, summed over all processes: one line of the metrics, and the costs
of the whole run.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.accounting import any_layer, dense_keys, keys_scanned
from torchcram.models.sequence import ModelOutput, SequenceModel
from torchcram.ops.collective import world_sum
from torchcram.types import Batch, BlockOutput, RoutingDecision

WATCHED = ("recurring", "novel")


class Ledger:
    """Counts of keys and tokens since the run began, and the rates of each step.

    Args:
        model: for the windows of its attention.

    Attributes:
        counts: ``keys_counted`` by routes, ``keys_computed`` in fact (with exploration and reference passes),
            ``keys_dense`` and ``tokens``.
    """

    def __init__(self, model: SequenceModel):
        self.windows = [getattr(getattr(block, "episodic", None), "window", None) for block in model.blocks]
        self.counts = {"keys_counted": 0.0, "keys_computed": 0.0, "keys_dense": 0.0, "tokens": 0.0}

    @torch.no_grad()
    def enter(self, output: ModelOutput, batch: Batch, *, reference: bool = False) -> dict[str, Any]:
        """Count a pass and return its rates.

        The reads of a ``reference`` pass (all reads forced) are costs, its tokens are no progress.
        """
        mask = batch.real
        decisions = [block.decision for block in output.blocks if block.decision is not None]
        reads, computed_reads = (
            [decision.read for decision in decisions],
            [decision.computed for decision in decisions],
        )
        sums = [
            mask.sum(),
            any_layer(decisions).sum(),
            dense_keys(mask) * len(decisions),
            sum(d.explored.sum() for d in decisions),
        ]
        sums += [
            self._keys(decisions, reads),
            self._keys(decisions, computed_reads),
            *[read.sum() for read in reads],
        ]
        total = world_sum(
            torch.stack([torch.as_tensor(value, device=mask.device).double() for value in sums])
        ).tolist()
        tokens, some, dense, explored, counted, computed, *by_layer = total
        progress = (
            {"keys_dense": 0.0, "tokens": 0.0} if reference else {"keys_dense": dense, "tokens": tokens}
        )
        for name, amount in {"keys_counted": counted, "keys_computed": computed, **progress}.items():
            self.counts[name] += amount
        return {
            "length": batch.gap.shape[1],
            "any_layer_read_rate": some / tokens,
            "read_rate_by_layer": [value / tokens for value in by_layer],
            "attention_share": counted / dense,
            "explored_rate": explored / tokens / len(decisions),
        }

    def _keys(self, decisions: list[RoutingDecision], reads: list[Tensor]) -> Tensor:
        layers = zip(decisions, reads, self.windows, strict=True)
        return torch.stack(
            [keys_scanned(read, window=window, written=decision.written) for decision, read, window in layers]
        ).sum()


@torch.no_grad()
def familiarity_record(output: ModelOutput, batch: Batch) -> dict[str, dict[str, float | None]]:
    """Return observed quality and predicted familiarity of recurring and novel queries, in the first layer
    that read them.
    """
    means: dict[str, dict[str, float | None]] = {"quality": {}, "familiarity": {}}
    for name in [name for name in WATCHED if name in batch.slices]:
        layers = world_sum(
            torch.stack([_observed(block, batch.group(name)) for block in output.blocks])
        ).tolist()
        asked, observed, quality, familiarity = next(
            (sums for sums in layers if sums[1] > 0), (0.0, 0.0, 0.0, 0.0)
        )
        means["quality"][name] = quality / observed if observed else None
        means["familiarity"][name] = familiarity / asked if observed else None
    return means


def _observed(block: BlockOutput, chosen: Tensor) -> Float[Tensor, " 4"]:
    """Sums over the chosen tokens: how many, how many with an observed quality, their quality, and the
    familiarity of all.
    """
    quality = block.signals.get("quality")
    if quality is None or block.decision is None:
        return torch.zeros(4, dtype=torch.float64, device=chosen.device)
    seen = chosen & ~quality.isnan()
    return torch.stack(
        [
            chosen.sum(),
            seen.sum(),
            quality[seen].double().sum(),
            block.decision.familiarity[chosen].double().sum(),
        ]
    ).double()
