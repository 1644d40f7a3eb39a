"""A static hybrid in the manner of Jamba (Lieber et al. 2024, arXiv 2403.19887): recurrence everywhere, attention in every k-th layer, always on.

Deviation: Jamba's attention layers have no recurrence of their own. Here every block has our working memory, so that the attention layers differ
from the others by their attention and by nothing else.
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
from torchcram.memory.working import WORKING_MEMORIES
from torchcram.strict import require_choice, require_positive
from torchcram.types import BlockOutput, MemoryState, MixingCost, RoutingControl


class StaticHybridBlock(nn.Module):
    """A working memory, in every k-th layer attention, then a feed-forward network; pre-norm, residual.

    Args:
        d_model: width.
        layer: index of the block in its model, from 0.
        attention_every: k: layers k - 1, 2k - 1, ... have attention.
        heads: heads of the attention.
        window: how many of the latest entries are read; None for all.
        working: ``"time_aware_ssm"`` or ``"ct_ode"``.
        state_size: channels of the recurrence.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    routed: ClassVar[bool] = False

    def __init__(
        self,
        d_model: int,
        *,
        layer: int = 0,
        attention_every: int = 2,
        heads: int = 4,
        window: int | None = None,
        working: str = "time_aware_ssm",
        state_size: int = 64,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        require_positive(attention_every=attention_every)
        attends = (layer + 1) % attention_every == 0
        self.working_norm = nn.RMSNorm(d_model)
        self.working = WORKING_MEMORIES[require_choice("working memory", working, WORKING_MEMORIES)](d_model, state_size=state_size)
        self.memory_norm = nn.RMSNorm(d_model) if attends else None
        self.episodic = EpisodicMemory(d_model, heads=heads, window=window) if attends else None
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        episodic = None if self.episodic is None else self.episodic.init_state(batch_size)
        return MemoryState(working=self.working.init_state(batch_size), episodic=episodic)

    def fast_parameters(self) -> list[nn.Parameter]:
        """No part wants a faster learning rate."""
        return []

    def after_step(self, output: BlockOutput) -> None:
        """Nothing to do between training steps."""
        del output

    def cost(self) -> MixingCost:
        """Return what mixing along time costs."""
        return attention_cost(self.working_norm.weight.numel())

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
        del noise, token
        state = self.init_state(len(gap)) if state is None else state
        assert state.working is not None
        update, working_state = self.working(self.working_norm(hidden_states), gap, state.working, horizon)
        x, memory = hidden_states + update, state.episodic
        read = torch.full(gap.shape, self.episodic is not None and control.reads != "none", device=gap.device)
        read = read if mask is None else read & mask
        if self.episodic is not None and self.memory_norm is not None:
            assert memory is not None
            h = self.memory_norm(x)
            memory, time = self.episodic.write(h, gap, memory)
            x = x + self.episodic.read(self.episodic.address(h), time, memory, read)
            memory = self.episodic.forget(memory)
        x = x + self.mlp(x)
        return BlockOutput(hidden_states=x, state=MemoryState(working=working_state, episodic=memory), decision=two_way_decision(read, read.to(gap.dtype)))
