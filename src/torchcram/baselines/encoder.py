"""What a whole-sequence encoder is: it takes masked vectors as they are, not the embedding of a step, so it
is no block to stack.

GRU-D and mTAND are such encoders: both impute each variable in their own way, and for that they must know
which values were observed.
Legend: ``variables`` columns of a series; times are in the task's unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torchcram.accounting import attention_cost
from torchcram.baselines.two_way import two_way_decision
from torchcram.types import Batch, BlockOutput, MemoryState, MixingCost


@dataclass(frozen=True, kw_only=True)
class MaskedVectors:
    """Irregular series as values and flags.

    Attributes:
        values: standardised; 0 where nothing was observed.
        seen: 1 where a value was observed, 0 elsewhere and on padding.
        gap: time since the previous step.
        real: False on padding, at the end.
    """

    values: Float[Tensor, "batch time variables"]
    seen: Float[Tensor, "batch time variables"]
    gap: Float[Tensor, "batch time"]
    real: Bool[Tensor, "batch time"]

    @classmethod
    def of_batch(cls, batch: Batch, *, flags: bool) -> MaskedVectors:
        """Take a batch whose inputs are values beside as many flags, or values alone, all of them
        observed.
        """
        values, seen = batch.inputs.chunk(2, -1) if flags else (batch.inputs, torch.ones_like(batch.inputs))
        seen = seen * batch.real[..., None]
        return cls(values=values * seen, seen=seen, gap=batch.gap * batch.real, real=batch.real)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What an encoder found out: about each step, and about the whole sequence.

    None is what it was not asked.
    """

    steps: Float[Tensor, "batch time d_model"] | None = None
    whole: Float[Tensor, "batch d_model"] | None = None


class SeriesEncoder(nn.Module, ABC):
    """Turns masked vectors into an :class:`Encoding`.

    Padding changes nothing that is said of real steps and of the whole.

    It has what training asks of a block, and no more: nothing is routed, nothing is read step by step.

    Args:
        d_model: width of what it returns.
    """

    routed: ClassVar[bool] = False

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model

    def cost(self) -> MixingCost:
        """Return what attention of the same width would cost: the measure of a share, though no key is
        read here.
        """
        return attention_cost(self.d_model)

    @abstractmethod
    def forward(self, series: MaskedVectors, *, steps: bool, whole: bool) -> Encoding:
        """Return what is asked: about each step, about the whole sequence, or both."""


def no_reads(series: MaskedVectors, d_model: int) -> BlockOutput:
    """Return what a block would say that reads at no step and changes nothing: what training counts."""
    silent = torch.zeros_like(series.gap)
    decision = two_way_decision(torch.zeros_like(series.real), silent)
    return BlockOutput(
        hidden_states=silent[..., None].expand(-1, -1, d_model), state=MemoryState(), decision=decision
    )


def last_real(
    states: Float[Tensor, "batch time d_model"], real: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch d_model"]:
    """Return the state of the last real step of each sequence."""
    return states[torch.arange(len(states), device=states.device), real.long().sum(1).clamp_min(1) - 1]
