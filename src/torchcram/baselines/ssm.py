"""Working memory alone: what the recurrent state can do without any attention."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torchcram.accounting import attention_cost
from torchcram.baselines.two_way import two_way_decision
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.working import WORKING_MEMORIES
from torchcram.strict import require_choice
from torchcram.types import BlockOutput, MemoryState, MixingCost, RoutingControl


class SSMBlock(nn.Module):
    """A working memory, then a feed-forward network; pre-norm, residual.

    Args:
        d_model: width.
        working: ``"time_aware_ssm"`` or ``"ct_ode"``.
        state_size: channels of the recurrence.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    routed: ClassVar[bool] = False

    def __init__(self, d_model: int, *, working: str = "time_aware_ssm", state_size: int = 64, mlp_ratio: float = 4.0):
        super().__init__()
        self.working_norm = nn.RMSNorm(d_model)
        self.working = WORKING_MEMORIES[require_choice("working memory", working, WORKING_MEMORIES)](d_model, state_size=state_size)
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState(working=self.working.init_state(batch_size))

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
        """Mix along time. See :class:`torchcram.types.SequenceMixer`."""
        del control, noise, mask, token
        state = self.init_state(len(gap)) if state is None else state
        assert state.working is not None
        update, working_state = self.working(self.working_norm(hidden_states), gap, state.working, horizon)
        x = hidden_states + update
        x = x + self.mlp(x)
        decision = two_way_decision(torch.zeros_like(gap, dtype=torch.bool), torch.zeros_like(gap))
        return BlockOutput(hidden_states=x, state=MemoryState(working=working_state), decision=decision)
