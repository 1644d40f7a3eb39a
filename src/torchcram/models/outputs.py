"""What the models for Transformers return: its own outputs, and what was routed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from torchcram.types import BlockOutput


@dataclass
class CRAMModelOutput(BaseModelOutputWithPast):
    """What :class:`torchcram.CRAMModel` returns.

    Attributes:
        routes: with ``output_routing=True``: for each layer ``[batch, time]`` values of
            :class:`torchcram.Route`; WORKING on padding.
        read_rates: with ``output_routing=True``: for each layer the share of the real tokens that read.
        blocks: outputs of the layers, in rows.
    """

    # Transformers' own fields are annotated for one precision only.
    __no_type_check__ = True
    routes: tuple[Tensor, ...] | None = None
    read_rates: Tensor | None = None
    blocks: tuple[BlockOutput, ...] | None = None


@dataclass
class CRAMCausalLMOutput(CausalLMOutputWithPast):
    """What :class:`torchcram.CRAMForCausalLM` returns.

    Attributes:
        loss: with labels: the language model's loss. In training its gradient holds the layers' own losses,
            too; its value does not.
        routes, read_rates: as in :class:`CRAMModelOutput`.
        losses: with labels: every loss by name, not weighted; ``task`` is the language model's.
        blocks: while training is led (:meth:`torchcram.CRAMForCausalLM.lead`): what the layers' memories have
            to learn after the optimizer's step.
    """

    # Transformers' own fields are annotated for one precision only.
    __no_type_check__ = True
    routes: tuple[Tensor, ...] | None = None
    read_rates: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    blocks: tuple[BlockOutput, ...] | None = None
