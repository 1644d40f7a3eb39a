"""What a fit leaves behind, as one object: it predicts alone, whatever becomes of the estimator's arguments.

Pickles hold weights as safetensors bytes; the model is built anew from the configuration of its training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from torchcram.accounting import any_layer
from torchcram.models.sequence import SequenceModel, head_loss
from torchcram.series.encoding import PanelEncoder
from torchcram.series.panel import Panel
from torchcram.series.side_heads import Lessons
from torchcram.series.task import EncodedSeries, SeriesTask, collate
from torchcram.training.build import build_model
from torchcram.training.run_config import RunConfig
from torchcram.training.stopping import Judgement
from torchcram.types import BlockOutput, Head, RoutingControl

TARGET = "target"
# Steps of a batch, padding included: bounds the memory that long series take.
MOST_TOKENS = 24_576
# Batches that are drawn at once and sorted by length.
POOL = 8


@dataclass(kw_only=True)
class FittedSeries:
    """A trained model with what turns series into its inputs.

    Attributes:
        encoder: fitted on the training series.
        head: of the target.
        lessons: weights of the side heads that taught the model.
        config, control: of the training, and what the model may read.
        model: the weights, in double precision.
        steps: that training took.
    """

    encoder: PanelEncoder
    head: Head
    lessons: Lessons
    config: RunConfig = field(default_factory=RunConfig)
    control: RoutingControl = field(default_factory=RoutingControl)
    model: SequenceModel | None = None
    steps: int = 0

    def task(self, series: Sequence[EncodedSeries], target: Tensor, *, hide: float = 0.0) -> SeriesTask:
        """Return encoded series and their targets as a task."""
        return SeriesTask(
            series,
            {TARGET: target},
            (self.head,),
            hide=hide,
            pool=POOL,
            most_tokens=MOST_TOKENS,
            lessons=self.lessons,
            variables=self.encoder.channels,
            flags=not self.encoder.carried,
        )

    def encoded(self, panel: Panel) -> list[EncodedSeries]:
        """Return what the model sees of the series."""
        return [self.encoder.encode(series) for series in panel.series]

    @torch.no_grad()
    def outputs(self, encoded: Sequence[EncodedSeries]) -> Float[Tensor, "series outputs"]:
        """Return the head's output for each series."""
        assert self.model is not None
        outputs = torch.empty(len(encoded), self.head.size, dtype=torch.float64)
        for rows in batches(encoded):
            batch = collate([encoded[row] for row in rows]).double()
            outputs[rows] = self.model(batch, control=self.control).outputs[TARGET]
        return outputs

    @torch.no_grad()
    def routes(self, encoded: Sequence[EncodedSeries]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the route of each step of each series in each layer, and whether the step read in any."""
        assert self.model is not None
        maps: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for rows in batches(encoded):
            batch = collate([encoded[row] for row in rows]).double()
            blocks = self.model(batch, control=self.control).blocks
            decisions = [block.decision for block in blocks if block.decision is not None]
            routes = torch.stack([decision.route for decision in decisions], 1).numpy()
            read = any_layer(decisions).numpy()
            for i, row in enumerate(rows):
                steps = len(encoded[row].gap)
                maps[row] = (routes[i, :, :steps], read[i, :steps])
        return [maps[row] for row in range(len(encoded))]

    def read_rate(self, panel: Panel) -> float:
        """Return the share of the steps of some series that read in any layer."""
        maps = self.routes(self.encoded(panel))
        return float(np.concatenate([read for _, read in maps]).mean())

    def keep(self, model: SequenceModel) -> None:
        """Keep a model in double precision: what it says of a series depends on no other in the batch."""
        self.model = model.to("cpu").double().eval()

    def __getstate__(self) -> dict[str, Any]:
        assert self.model is not None
        weights = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        return {**vars(self), "model": save_bytes(weights)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "model": None})
        untrained = build_model(self.config, self.task([self.encoder.nothing], self._any_target()))
        untrained.double().load_state_dict(load_bytes(state["model"]))
        self.keep(untrained)

    def _any_target(self) -> Tensor:
        if self.head.kind == "classification":
            return torch.zeros(1, dtype=torch.int64)
        return torch.zeros(1, self.head.size)


def batches(encoded: Sequence[EncodedSeries]) -> list[list[int]]:
    """Return rows of about equal length together, so that little is padded, and never too much at once."""
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].gap))
    grouped: list[list[int]] = [[]]
    for row in order:
        steps = len(encoded[row].gap)
        if grouped[-1] and (
            (len(grouped[-1]) + 1) * steps > MOST_TOKENS or steps > 2 * len(encoded[grouped[-1][0]].gap) + 64
        ):
            grouped.append([])
        grouped[-1].append(row)
    return grouped


@torch.no_grad()
def held_out(model: SequenceModel, task: SeriesTask, control: RoutingControl) -> Judgement:
    """Return the mean loss of the target over held-out series, nats or the squared error, and the reads of a
    step.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    loss, read, steps = 0.0, 0.0, 0.0
    for rows in batches(task.series):
        batch = task.rows(rows).to(device)
        output = model(batch, control=control)
        loss += len(rows) * float(head_loss(task.own_heads[0], output.outputs[TARGET], batch))
        read += float(sum((_reads(block) * batch.real).sum() for block in output.blocks))
        steps += float(batch.real.sum())
    model.train(training)
    return Judgement(loss=loss / len(task.series), reads=read / steps)


def _reads(block: BlockOutput) -> Tensor:
    assert block.decision is not None
    return block.decision.read
