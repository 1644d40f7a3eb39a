"""A block without a router: working memory and attention, each there or not, always on for every token.

Three baselines are this block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torchcram.accounting import attention_cost
from torchcram.baselines.two_way import two_way_decision
from torchcram.memory.episodic import EpisodicMemory
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.working import build_working_memory
from torchcram.ops.rms_norm import RMSNorm
from torchcram.types import BlockOutput, MemoryState, MixingCost, RoutingControl


class StaticBlock(nn.Module):
    """``x + working(norm(x))``, then ``x + attention(norm(x))``, each there or not, then ``x + mlp(x)``.

    Args:
        d_model: width.
        working: kind of the working memory, or None for none.
        state_size: its channels.
        attends: whether there is attention.
        heads: heads of the attention.
        window: how many of the latest entries are read; None for all.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    routed: ClassVar[bool] = False

    def __init__(
        self,
        d_model: int,
        *,
        working: str | None,
        attends: bool,
        mlp_ratio: float,
        state_size: int = 64,
        heads: int = 4,
        window: int | None = None,
    ):
        super().__init__()
        self.working_norm = None if working is None else RMSNorm(d_model)
        self.working = (
            None if working is None else build_working_memory(working, d_model, state_size=state_size)
        )
        self.memory_norm = RMSNorm(d_model) if attends else None
        self.episodic = EpisodicMemory(d_model, heads=heads, window=window) if attends else None
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState(
            working=None if self.working is None else self.working.init_state(batch_size),
            episodic=None if self.episodic is None else self.episodic.init_state(batch_size),
        )

    def fast_parameters(self) -> list[nn.Parameter]:
        """No part wants a faster learning rate."""
        return []

    def after_step(self, output: BlockOutput) -> None:
        """Nothing to do between training steps."""
        del output

    def cost(self) -> MixingCost:
        """Return what mixing along time costs."""
        return attention_cost(self.mlp.norm.weight.numel())

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
        """Mix along time.

        See :class:`torchcram.types.SequenceMixer`. ``control.reads == "none"`` switches attention off.
        """
        del noise, token
        state = self.init_state(len(gap)) if state is None else state
        x, working, episodic = hidden_states, state.working, state.episodic
        read = torch.full(gap.shape, self.episodic is not None and control.reads != "none", device=gap.device)
        read = read if mask is None else read & mask
        if self.working is not None and self.working_norm is not None:
            assert working is not None
            update, working = self.working(self.working_norm(x), gap, working, horizon, mask)
            x = x + update
        if self.episodic is not None and self.memory_norm is not None:
            assert episodic is not None
            h = self.memory_norm(x)
            memory, time = self.episodic.write(h, gap, episodic, mask=mask)
            x = x + self.episodic.read(h, time, memory, read, before=episodic, dense=control.dense)
            episodic = self.episodic.forget(memory)
        x = x + self.mlp(x)
        return BlockOutput(
            hidden_states=x,
            state=replace(state, working=working, episodic=episodic),
            decision=two_way_decision(read, read.to(gap.dtype)),
        )
