"""How a model is judged: on fresh sequences, exploration off, with the words of
:mod:`torchcram.accounting`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchcram.accounting import (
    MixingCounts,
    any_layer,
    any_layer_used,
    dense_keys,
    in_need,
    keys_scanned,
    mixing_shares,
)
from torchcram.models.checks import check_targets
from torchcram.models.sequence import ModelOutput, SequenceModel, scored
from torchcram.tasks.base import Floors, Task, floors_of, generator_of
from torchcram.types import Batch, Route, RoutingControl

# What the route reports call the steps at which an oracle must read.
NEEDS_READ = "needs_read"


class Tally:
    """Sums over batches, and the means made of them.

    Args:
        model: for the cost of its blocks and the window of its attention.
    """

    def __init__(self, model: SequenceModel):
        self.model = model
        self.sums: dict[str, float] = defaultdict(float)

    def add(self, output: ModelOutput, batch: Batch, floors: Floors | None = None) -> None:
        """Count one batch, and the least that it takes."""
        mask = batch.real
        decisions = [block.decision for block in output.blocks if block.decision is not None]
        self._count(tokens=mask.sum(), dense=dense_keys(mask) * len(decisions))
        self._count(
            any=any_layer(decisions).sum(),
            used=any_layer_used(decisions).sum(),
            need=in_need(decisions).sum(),
        )
        for layer, (block, decision) in enumerate(zip(self.model.blocks, decisions, strict=True)):
            window = getattr(getattr(block, "episodic", None), "window", None)
            keys = keys_scanned(decision.read, window=window, written=decision.written)
            self._count(**{f"read{layer}": decision.read.sum(), f"keys{layer}": keys})
            self._count(
                **{f"asked{layer}": decision.asked.sum(), f"explored{layer}": decision.explored.sum()}
            )
            written = output.blocks[layer].signals.get("surprise")
            self._count(**{f"written{layer}": torch.zeros(()) if written is None else (written > 0).sum()})
        route = torch.stack([decision.route for decision in decisions]).amax(0)
        self._score(output, batch)
        for name in batch.slices:
            self._count_routes(name, batch.group(name), route)
        if floors is not None:
            self._count_floors(floors, batch, route)

    def _count_routes(self, name: str, steps: Tensor, route: Tensor) -> None:
        self._count(**{f"slice:{name}": steps.sum()})
        self._count(**{f"route:{name}:{int(kind)}": (steps & (route == int(kind))).sum() for kind in Route})

    def _count_floors(self, floors: Floors, batch: Batch, route: Tensor) -> None:
        needed = floors.needs_read.to(route.device) & batch.real
        self._count(**{"floor:reads": needed.sum(), "floor:keys": keys_scanned(needed)})
        if NEEDS_READ not in batch.slices:
            self._count_routes(NEEDS_READ, needed, route)
        self.sums["sequences"] += batch.size
        for name, mean in floors.figures.items():
            self.sums[f"figure:{name}"] += mean * batch.size

    def _score(self, output: ModelOutput, batch: Batch) -> None:
        for head in self.model.specs:
            keep, target, answer = scored(head, batch), batch.targets[head.name], output.outputs[head.name]
            if head.kind == "regression":
                self._count(
                    **{
                        f"{head.name}:error": (answer - target)[keep].double().square().sum(),
                        f"{head.name}:count": keep.sum(),
                    }
                )
                continue
            right = (answer.argmax(-1) == target) & keep
            self._count(**{f"{head.name}:right": right.sum(), f"{head.name}:count": keep.sum()})
            if head.per == "step":
                for name in batch.slices:
                    slice_ = batch.group(name)
                    self._count(
                        **{
                            f"{head.name}:{name}:right": (right & slice_).sum(),
                            f"{head.name}:{name}:count": (keep & slice_).sum(),
                        }
                    )

    def _count(self, **amounts: Tensor) -> None:
        for name, amount in amounts.items():
            self.sums[name] += float(amount)

    @property
    def scored(self) -> int:
        """Number of scored targets of the first head."""
        return int(self.sums[f"{self.model.specs[0].name}:count"])

    def mean(self, part: str, whole: str) -> float:
        """Return the ratio of two sums."""
        return self.sums[part] / self.sums[whole] if self.sums[whole] else float("nan")

    def record(self) -> dict[str, Any]:
        """Return rates, shares, accuracies and routes."""
        layers = range(len(self.model.blocks))
        keys = sum(self.sums[f"keys{layer}"] for layer in layers)
        flops, moved = self._cost_shares()
        record: dict[str, Any] = {
            "any_layer_read_rate": self.mean("any", "tokens"),
            "any_layer_used_rate": self.mean("used", "tokens"),
            "need_rate": self.mean("need", "tokens"),
            "read_rate_by_layer": [self.mean(f"read{layer}", "tokens") for layer in layers],
            "attention_share": keys / self.sums["dense"],
            "mixing_flops_share": flops,
            "bytes_share": moved,
            "accuracy": self._accuracies(),
            "routes_by_slice": self._routes(),
        }
        for head in self.model.specs:
            if head.kind == "regression":
                record["dynamics_mse" if head.name == "next_observation" else f"{head.name}_mse"] = self.mean(
                    f"{head.name}:error", f"{head.name}:count"
                )
        return record | self._floors()

    def _floors(self) -> dict[str, float]:
        if "floor:keys" not in self.sums:
            return {}
        figures = [key.removeprefix("figure:") for key in self.sums if key.startswith("figure:")]
        return {
            "any_layer_floor": self.mean("floor:reads", "tokens"),
            "attention_share_floor": self.mean("floor:keys", "dense"),
            **{name: self.mean(f"figure:{name}", "sequences") for name in figures},
        }

    def _cost_shares(self) -> tuple[float, float]:
        costs = [block.cost() for block in self.model.blocks]
        counts = [
            MixingCounts(
                keys=self.sums[f"keys{i}"],
                tokens=self.sums["tokens"],
                asked=self.sums[f"asked{i}"],
                written=self.sums[f"written{i}"],
            )
            for i in range(len(costs))
        ]
        return mixing_shares(costs, counts, dense_keys_per_layer=self.sums["dense"] / len(costs))

    def _accuracies(self) -> dict[str, float]:
        heads = [head for head in self.model.specs if head.kind == "classification"]
        accuracies = {}
        for head in heads:
            prefix = "" if len(heads) == 1 else f"{head.name}."
            accuracies[f"{prefix}all"] = self.mean(f"{head.name}:right", f"{head.name}:count")
            for name in [key.removeprefix("slice:") for key in self.sums if key.startswith("slice:")]:
                if self.sums[f"{head.name}:{name}:count"]:
                    right, count = (f"{head.name}:{name}:{what}" for what in ("right", "count"))
                    accuracies[prefix + name] = self.mean(right, count)
        return accuracies

    def _routes(self) -> dict[str, list[float]]:
        names = [
            key.removeprefix("slice:") for key in self.sums if key.startswith("slice:") and self.sums[key]
        ]
        return {
            name: [self.mean(f"route:{name}:{int(kind)}", f"slice:{name}") for kind in Route]
            for name in names
        }


def enough_scored(wanted: int) -> Callable[[Tally, int], bool]:
    """Return when to stop: at so many scored targets of the first head (SRCD: queries), or at so many
    sequences if they score hardly anything.
    """
    return lambda tally, seen: max(tally.scored, seen) >= wanted


def suited(batch: Batch, model: SequenceModel) -> Batch:
    """Return the batch in a model's precision, and on its device."""
    parameter = next(model.parameters())
    return (batch.double() if parameter.dtype == torch.float64 else batch).to(parameter.device)


def evaluation_batch(task: Task, *, sequences: int, seed: int, index: int, step: int) -> Batch:
    """Return batch ``index`` of a fixed set of fresh sequences, apart from all training data."""
    return task.batch(sequences, generator=generator_of(seed, index, fresh=True), step=step)


@torch.no_grad()
def evaluate(
    model: SequenceModel,
    task: Task,
    *,
    control: RoutingControl,
    seed: int,
    step: int,
    enough: Callable[[Tally, int], bool],
    sequences: int = 16,
) -> dict[str, Any]:
    """Judge a model until ``enough(tally, sequences so far)``; return rates, shares, accuracies, floors and
    oracle errors.

    Args:
        model: any :class:`SequenceModel`; its training mode is restored.
        task: where the sequences come from.
        control: what may be read.
        seed: of the evaluation sequences.
        step: training step at which the task stands.
        enough: when to stop.
        sequences: batch size.

    Raises:
        ValueError: if the task's targets do not fit the model's heads.
    """
    training = model.training
    model.eval()
    tally, seen = Tally(model), 0
    while not enough(tally, seen):
        batch = evaluation_batch(task, sequences=sequences, seed=seed, index=seen, step=step)
        floors = floors_of(task, batch)
        check_targets(batch, model.specs)
        batch = suited(batch, model)
        tally.add(model(batch, control=control), batch, floors)
        seen += sequences
    model.train(training)
    return tally.record() | {"sequences": seen, "evaluated_queries": tally.scored}


@torch.no_grad()
def route_map(
    model: SequenceModel, batch: Batch, *, control: RoutingControl, floors: Floors | None = None
) -> dict[str, Any]:
    """Return the routes of the first sequence of a batch, layer by layer, as plain lists, without its
    padding; and where an oracle must read.
    """
    model.eval()
    batch = suited(batch.rows(0, 1), model)
    steps = int(batch.real.sum())
    output = model(batch, control=control)
    blank = torch.zeros_like(batch.gap, dtype=torch.bool)
    needed = blank if floors is None else floors.needs_read
    return {
        "routes": [
            block.decision.route[0, :steps].tolist() for block in output.blocks if block.decision is not None
        ],
        "query": batch.slices.get("query", blank)[0, :steps].tolist(),
        "needs_read": needed[0, :steps].tolist(),
        "time": batch.gap[0, :steps].double().cumsum(0).tolist(),
    }
