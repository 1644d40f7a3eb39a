"""One layer of the language model: a mixer, with the state that a cache carries for it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from torchcram.memory.block import CRAMBlock
from torchcram.memory.budget import counted
from torchcram.memory.residual import ResidualBlock
from torchcram.models.cache import first_state
from torchcram.models.configuration_cram import CRAMConfig
from torchcram.models.offloading import at_hand, beside
from torchcram.ops.selection import Everything
from torchcram.types import BlockOutput, MemoryState, Step


class CRAMDecoderLayer(GradientCheckpointingLayer):
    """One mixer, as a layer that can be checkpointed: its noise comes from outside, so that recomputation
    takes the same routes.

    Args:
        config: sizes and mixer.
        layer: index of the layer.
    """

    def __init__(self, config: CRAMConfig, layer: int):
        super().__init__()
        self.config, self.layer = config, layer
        self.mixer = cast(ResidualBlock, config.build_layer(layer))
        if config.routing == "dense":
            self.mixer.selection = Everything()
        for part in self.mixer.modules():
            # Transformers asks the layer, not its parts, to initialise weights.
            part._is_hf_initialized = True  # type: ignore[assignment]

    def forward(
        self, hidden_states: Tensor, step: Step, state: MemoryState | None, *, room: int | None
    ) -> BlockOutput:
        """Mix along the steps.

        Args:
            hidden_states: ``[rows, steps, width]``.
            step: times, what may be read, and noise.
            state: what a cache carries, None before the first token.
            room: entries for which a cache that begins here makes room; None without a cache.

        Raises:
            ValueError: if the state is on another device than the layer.
        """
        step = beside(step, hidden_states.device)
        with at_hand(self.mixer):
            if state is None and room is not None:
                state = first_state(self.mixer, len(step.gap), room=room)
            if state is not None and state.spent is not None and state.spent.device != hidden_states.device:
                raise ValueError(
                    f"the cache of layer {self.layer} is on {state.spent.device}, the layer on "
                    f"{hidden_states.device}: start with a new cache"
                )
            block = self.mixer(hidden_states, step, state)
        return self._counted(block, state, step.mask)

    def _counted(self, block: BlockOutput, before: MemoryState | None, mask: Tensor | None) -> BlockOutput:
        """Count tokens and reads for mixers that do not count them themselves."""
        if before is None or before.spent is None or isinstance(self.mixer, CRAMBlock):
            return block
        steps = block.hidden_states[..., 0]
        read = torch.zeros_like(steps, dtype=torch.bool) if block.decision is None else block.decision.read
        return replace(block, state=replace(block.state, spent=counted(before.spent, read, mask)))

    @torch.no_grad()
    def renew(self) -> None:
        """Give those weights that no checkpoint has set the values of a fresh layer."""
        own = self.mixer.state_dict(keep_vars=True)
        if all(getattr(weight, "_is_hf_initialized", False) for weight in own.values()):
            return
        with torch.device("cpu"):
            fresh = self.config.build_layer(self.layer).state_dict()
        for name, weight in own.items():
            init.copy_(weight, fresh[name])
