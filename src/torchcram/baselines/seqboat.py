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
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from torchcram.baselines.activated import ActivatedMemory
from torchcram.baselines.two_way import two_way_decision
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.residual import ResidualBlock
from torchcram.memory.router import full_precision
from torchcram.ops.collective import step_mean
from torchcram.ops.routing import priced
from torchcram.types import BlockOutput, MemoryState, MixingCost, Step


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


class SeqBoatBlock(ResidualBlock):
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
        super().__init__(d_model, working=working, state_size=state_size)
        self.configurator = LatentConfigurator(d_model)
        self.episodic = ActivatedMemory(d_model, heads=heads, window=window)
        self.gate = nn.Linear(d_model, d_model)
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return replace(super().init_state(batch_size), episodic=self.episodic.init_state(batch_size))

    def fast_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that decide: they want a faster learning rate than the trunk."""
        return list(self.configurator.parameters())

    def cost(self) -> MixingCost:
        """Return what mixing along time costs: the configurator sees every token."""
        size = self.configurator.logits.weight.numel()
        return replace(super().cost(), flops_token=2.0 * size, bytes_token=4.0 * size)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        step: Step,
        state: MemoryState | None = None,
    ) -> BlockOutput:
        """Mix along time.

        See :class:`torchcram.types.SequenceMixer`. Nothing is explored; ``step.control.reads`` activates all
        tokens, or none.
        """
        state = self.init_state(len(step.gap)) if state is None else state
        assert state.episodic is not None
        x, working = self.work(hidden_states, step, state.working)
        h = self.memory_norm(x)

        probability = self.configurator(h)
        activated = self._activated(probability, step)
        attended, memory = self.episodic.attend(h, step.gap, state.episodic, activated, step.mask)
        gained = self.episodic.out(silu(self.gate(h[activated])) * attended) * probability[activated][:, None]
        x = x + torch.zeros_like(x).masked_scatter(activated[..., None], gained.to(x.dtype))
        reading = priced(probability, steady=step.control.steady)
        return BlockOutput(
            hidden_states=self.feed(x),
            state=MemoryState(working=working, episodic=memory),
            decision=two_way_decision(activated, probability, written=activated),
            losses={"price": step_mean(reading, step.mask)},
            owner=self,
        )

    @staticmethod
    def _activated(probability: Tensor, step: Step) -> Tensor:
        reads = step.control.reads
        if reads == "routed":
            return step.masked(probability > 0.5)
        return step.masked(torch.full_like(probability, reads == "all", dtype=torch.bool))
