"""A Transformer block, dense or with a sliding window: every token reads.

The same episodic memory as CRAM's (rotary by time stamp), and nothing else that carries time.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torchcram.accounting import attention_cost
from torchcram.baselines.two_way import two_way_decision
from torchcram.memory.episodic import EpisodicMemory
from torchcram.memory.feed_forward import FeedForward
from torchcram.types import BlockOutput, MemoryState, MixingCost, RoutingControl


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward network; pre-norm, residual.

    Args:
        d_model: width.
        heads: number of heads.
        window: how many of the latest entries are read; None for all.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    routed: ClassVar[bool] = False

    def __init__(self, d_model: int, *, heads: int = 4, window: int | None = None, mlp_ratio: float = 4.0):
        super().__init__()
        self.memory_norm = nn.RMSNorm(d_model)
        self.episodic = EpisodicMemory(d_model, heads=heads, window=window)
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState(episodic=self.episodic.init_state(batch_size))

    def fast_parameters(self) -> list[nn.Parameter]:
        """No part wants a faster learning rate."""
        return []

    def after_step(self, output: BlockOutput) -> None:
        """Nothing to do between training steps."""
        del output

    def cost(self) -> MixingCost:
        """Return what mixing along time costs."""
        return attention_cost(self.memory_norm.weight.numel())

    def forward(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        gap: Float[Tensor, "batch time"],
        state: MemoryState | None = None,
        *,
        control: RoutingControl,
        noise: Float[Tensor, "batch time 4"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
        horizon: Float[Tensor, "batch time"] | None = None,
        token: Float[Tensor, "batch time d_model"] | None = None,
    ) -> BlockOutput:
        """Mix along time. See :class:`torchcram.types.SequenceMixer`. ``control.reads == "none"`` switches attention off."""
        del noise, horizon, token
        state = self.init_state(len(gap)) if state is None else state
        assert state.episodic is not None
        h = self.memory_norm(hidden_states)
        memory, time = self.episodic.write(h, gap, state.episodic)
        read = torch.full(gap.shape, control.reads != "none", device=gap.device)
        read = read if mask is None else read & mask
        x = hidden_states + self.episodic.read(self.episodic.address(h), time, memory, read)
        x = x + self.mlp(x)
        decision = two_way_decision(read, read.to(gap.dtype))
        return BlockOutput(hidden_states=x, state=MemoryState(episodic=self.episodic.forget(memory)), decision=decision)
