"""SeqBoat: sparse modular activation of an attention unit (Ren et al. 2023, arXiv 2306.11197), from its
equations.

    s = norm(x + working(norm(x)))                the state-space model's view of the token
    p = softmax(W s / temperature)[activate]      the latent configurator
    x = x + working(norm(x))
    x = x + p * out(silu(gate(s)) * attention(s)) the gated attention unit, for activated tokens: p > 1/2
    x = x + mlp(norm(x))

Attention runs among the activated tokens, over the last ``window`` of them: a token that is not activated is
neither written nor read, which is how SeqBoat saves. An activated token counts as a read. The confidence
``p`` scales what the unit adds, and so learns. The price of an activation is ours: the paper has none.
Deviation: recurrence, attention (softmax over normalised, rotated heads and a null entry) and feed-forward
network are those that all our mixers have, in pre-norm residual form without the paper's last activation, and
the configurator starts open, as our own routers do.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import silu

from torchcram.accounting import attention_cost
from torchcram.baselines.activated import ActivatedMemory
from torchcram.baselines.two_way import two_way_decision
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.router import full_precision
from torchcram.memory.working import build_working_memory
from torchcram.ops.collective import step_mean
from torchcram.ops.rms_norm import RMSNorm
from torchcram.ops.routing import priced
from torchcram.types import BlockOutput, MemoryState, MixingCost, RoutingControl


class LatentConfigurator(nn.Module):
    """``p = softmax((W x + b) / temperature)[activate]``, of the two logits skip and activate.

    The temperature is learned, and starts at the square root of the width.

    Args:
        d_model: width.
        start: log-odds of an activation at the start.
    """

    def __init__(self, d_model: int, *, start: float = 2.0):
        super().__init__()
        self.logits = nn.Linear(d_model, 2)
        self.log_temperature = nn.Parameter(torch.tensor(0.5 * math.log(d_model)))
        with torch.no_grad():
            self.logits.bias.copy_(torch.tensor([0.0, start * math.sqrt(d_model)]))

    def forward(self, hidden_states: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time"]:
        """Return the probability of an activation, in fp32 (or fp64)."""
        logits = full_precision(self.logits, hidden_states)
        return torch.softmax(logits / self.log_temperature.exp(), -1)[..., 1]


class SeqBoatBlock(nn.Module):
    """``x + working(norm(x))``, then ``x + p out(silu(gate(s)) attention(s))`` with ``s = norm(x)`` for
    tokens with ``p > 1/2``, then ``x + mlp(x)``.

    Args:
        d_model: width.
        heads: heads of the attention unit.
        window: how many of the latest activated tokens are read; None for all.
        working: ``"time_aware_ssm"`` or ``"ct_ode"``.
        state_size: channels of the recurrence.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    routed: ClassVar[bool] = True

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        window: int | None = 256,
        working: str = "time_aware_ssm",
        state_size: int = 64,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        self.working_norm, self.memory_norm = RMSNorm(d_model), RMSNorm(d_model)
        self.working = build_working_memory(working, d_model, state_size=state_size)
        self.configurator = LatentConfigurator(d_model)
        self.episodic = ActivatedMemory(d_model, heads=heads, window=window)
        self.gate = nn.Linear(d_model, d_model)
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState(
            working=self.working.init_state(batch_size), episodic=self.episodic.init_state(batch_size)
        )

    def fast_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that decide: they want a faster learning rate than the trunk."""
        return list(self.configurator.parameters())

    def after_step(self, output: BlockOutput) -> None:
        """Nothing to do between training steps."""
        del output

    def cost(self) -> MixingCost:
        """Return what mixing along time costs: the configurator sees every token."""
        size = self.configurator.logits.weight.numel()
        return replace(
            attention_cost(self.memory_norm.weight.numel()), flops_token=2.0 * size, bytes_token=4.0 * size
        )

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

        See :class:`torchcram.types.SequenceMixer`. Nothing is explored; ``control.reads`` activates all
        tokens, or none.
        """
        del noise, token
        state = self.init_state(len(gap)) if state is None else state
        assert state.working is not None and state.episodic is not None
        update, working_state = self.working(
            self.working_norm(hidden_states), gap, state.working, horizon, mask
        )
        x = hidden_states + update
        h = self.memory_norm(x)

        probability = self.configurator(h)
        activated = self._activated(probability, control, mask)
        attended, memory = self.episodic.attend(h, gap, state.episodic, activated, mask)
        gained = self.episodic.out(silu(self.gate(h[activated])) * attended) * probability[activated][:, None]
        x = x + torch.zeros_like(x).masked_scatter(activated[..., None], gained.to(x.dtype))
        x = x + self.mlp(x)
        return BlockOutput(
            hidden_states=x,
            state=MemoryState(working=working_state, episodic=memory),
            decision=two_way_decision(activated, probability, written=activated),
            losses={"price": step_mean(priced(probability, steady=control.steady), mask)},
        )

    @staticmethod
    def _activated(probability: Tensor, control: RoutingControl, mask: Tensor | None) -> Tensor:
        wanted = (
            probability > 0.5
            if control.reads == "routed"
            else torch.full_like(probability, control.reads == "all", dtype=torch.bool)
        )
        return wanted if mask is None else wanted & mask
