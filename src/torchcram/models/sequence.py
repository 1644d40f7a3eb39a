"""A whole sequence model: embed inputs and times, a stack of mixers, one linear head per output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from torchcram.memory.residual import ResidualBlock
from torchcram.mixers import build_mixer
from torchcram.models.checks import check_batch, check_targets
from torchcram.models.read_out import last_step, pooled, width_read
from torchcram.ops.collective import world_mean
from torchcram.ops.rms_norm import RMSNorm
from torchcram.types import Batch, BlockOutput, Head, MemoryState, RoutingControl, Step


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """What a model returns: outputs by head name, one :class:`BlockOutput` a layer, and the states to
    carry on with.
    """

    outputs: dict[str, Tensor]
    blocks: tuple[BlockOutput, ...]

    @property
    def states(self) -> tuple[MemoryState, ...]:
        """The state of each layer after the last step."""
        return tuple(block.state for block in self.blocks)


class TimeFeatures(nn.Module):
    """Sines and cosines of a span of time at learned frequencies, its logarithm, and the span itself
    (saturating).

    Args:
        frequencies: how many, spread from ``lowest`` to ``highest`` radians per unit of time.
    """

    def __init__(self, *, frequencies: int = 8, lowest: float = 0.1, highest: float = 10.0):
        super().__init__()
        self.frequency = nn.Parameter(
            torch.logspace(torch.tensor(lowest).log10(), torch.tensor(highest).log10(), frequencies)
        )
        self.size = 2 * frequencies + 2

    def forward(self, span: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch features"]:
        """Return the features of each span (in the task's unit of time)."""
        angle = span[..., None] * self.frequency
        return torch.cat(
            [angle.cos(), angle.sin(), torch.log1p(span)[..., None], torch.exp(-span)[..., None]], -1
        )


class SequenceModel(nn.Module):
    """Continuous or symbolic inputs, irregular times, heads per step and per sequence.

    Args:
        heads: outputs.
        input_size: number of continuous features of a step; None for symbolic inputs.
        vocabulary: number of symbols; None for continuous inputs.
        d_model, layers: width and depth.
        mixer: name in :data:`torchcram.mixers.MIXERS`.
        options: keyword arguments of the mixer.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        *,
        input_size: int | None = None,
        vocabulary: int | None = None,
        d_model: int = 64,
        layers: int = 2,
        mixer: str = "cram",
        options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if (input_size is None) == (vocabulary is None):
            raise ValueError(
                "give either input_size (continuous inputs) or vocabulary (symbols), not both or neither"
            )
        self.input_size, self.vocabulary = input_size, vocabulary
        self.embed = (
            nn.Embedding(vocabulary, d_model)
            if vocabulary is not None
            else nn.Linear(int(input_size or 0), d_model)
        )
        self.gap_features, self.horizon_features = TimeFeatures(), TimeFeatures()
        self.embed_time = nn.Linear(self.gap_features.size + self.horizon_features.size, d_model, bias=False)
        # A ModuleList, typed by what it holds.
        self.blocks = cast(
            list[ResidualBlock],
            nn.ModuleList(build_mixer(mixer, d_model, options or {}, layer=layer) for layer in range(layers)),
        )
        self.norm = RMSNorm(d_model)
        self.specs = tuple(heads)
        self.heads = nn.ModuleDict(
            {head.name: nn.Linear(width_read(head, d_model), head.size) for head in heads}
        )

    @property
    def routed(self) -> bool:
        """Whether any layer has a router that learns."""
        return any(block.routed for block in self.blocks)

    def check(self, batch: Batch) -> None:
        """Raise ValueError, naming what is wrong, unless the model can learn from the batch."""
        check_batch(batch, input_size=self.input_size, vocabulary=self.vocabulary)
        check_targets(batch, self.specs)

    def init_state(self, batch_size: int) -> tuple[MemoryState, ...]:
        """Return the state of each layer before the first step."""
        return tuple(block.init_state(batch_size) for block in self.blocks)

    def forward(
        self,
        batch: Batch,
        states: Sequence[MemoryState] | None = None,
        *,
        control: RoutingControl | None = None,
        noise: Float[Tensor, "batch time layers 4"] | None = None,
    ) -> ModelOutput:
        """Run over a batch, or over its continuation if ``states`` of the steps before are given.

        Raises:
            ValueError: if the batch is empty, or holds NaN, negative gaps or unknown symbols: see
                :func:`torchcram.models.checks.check_batch`.
        """
        check_batch(
            batch, input_size=self.input_size, vocabulary=self.vocabulary, continued=states is not None
        )
        control = RoutingControl() if control is None else control
        horizon = torch.zeros_like(batch.gap) if batch.horizon is None else batch.horizon
        times = torch.cat([self.gap_features(batch.gap), self.horizon_features(horizon)], -1)
        # The residual stream keeps full precision under autocast.
        token = (self.embed(batch.inputs) + self.embed_time(times)).to(batch.gap.dtype)
        states = self.init_state(batch.size) if states is None else states
        x = token
        blocks: list[BlockOutput] = []
        # Each block has its own noise; everything else is the same for all of them.
        step = Step(gap=batch.gap, control=control, mask=batch.mask, horizon=batch.horizon, token=token)
        for layer, (block, state) in enumerate(zip(self.blocks, states, strict=True)):
            blocks.append(block(x, replace(step, noise=None if noise is None else noise[:, :, layer]), state))
            x = blocks[-1].hidden_states
        return ModelOutput(outputs=self._read_out(self.norm(x), batch), blocks=tuple(blocks))

    def _read_out(self, x: Float[Tensor, "batch time d_model"], batch: Batch) -> dict[str, Tensor]:
        return self._heads_of(x, last_step(x, batch.mask), batch)

    def _heads_of(self, steps: Tensor, last: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return what the heads say of the steps, and of the sequence that ``last`` sums up."""
        whole = {False: last}
        if any(head.pooled for head in self.specs):
            whole[True] = pooled(steps, batch.mask, last)
        return {
            head.name: self.heads[head.name](steps if head.per == "step" else whole[head.pooled])
            for head in self.specs
        }

    def task_losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Return the loss of each head, not yet weighted, averaged over the scored targets.

        Raises:
            ValueError: if targets are missing or do not fit their heads.
        """
        check_targets(batch, self.specs)
        return {head.name: head_loss(head, outputs[head.name], batch) for head in self.specs}


def head_loss(head: Head, output: Tensor, batch: Batch) -> Float[Tensor, ""]:
    """Return cross-entropy in nats, or the mean squared error, over the scored targets (0 if there are
    none).
    """
    target = batch.targets[head.name]
    keep = scored(head, batch)
    dtype = torch.promote_types(output.dtype, torch.float32)
    if head.kind == "classification":
        return world_mean(
            cross_entropy(output[keep].to(dtype), target[keep], reduction="sum"), keep.sum().to(dtype)
        )
    output = output.to(dtype)
    error = output - torch.where(keep, target, output.detach())
    return world_mean(error.square().sum(), keep.sum().to(dtype))


def scored(head: Head, batch: Batch) -> Bool[Tensor, "..."]:
    """Return which targets of a head count: present, and on a real step. Shaped like the target."""
    target = batch.targets[head.name]
    present = target != -100 if head.kind == "classification" else ~target.isnan()
    if head.per == "sequence" or batch.mask is None:
        return present
    return present & (batch.mask if head.kind == "classification" else batch.mask[..., None])
