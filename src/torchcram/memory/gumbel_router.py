"""The paper's router: one softmax over the three memories.

p = softmax(W h + (0, rise (familiar - tipping), 0) + Gumbel noise)
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcram.memory.router import Router, full_precision
from torchcram.ops.routing import gumbel_noise
from torchcram.types import Route, Step


class GumbelRouter(Router):
    """``p = softmax(W h + (0, rise (familiar - tipping), 0) + Gumbel noise)``; without noise the
    largest wins.

    The logits see the token's state; the semantic one also rises with the predicted quality, and starts out
    equal to the episodic one at quality 0.83 (the paper's tipping point).

    Args:
        d_model: width.
        threshold: quality at which SEMANTIC and EPISODIC start out level.
        noise_scale: scale of the Gumbel noise; 1 in the paper.
        steepness: initial rise of the semantic logit from quality 0 to 1.
    """

    def __init__(
        self, d_model: int, *, threshold: float = 0.83, noise_scale: float = 1.0, steepness: float = 8.0
    ):
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"threshold {threshold} must lie strictly between 0 and 1")
        self.noise_scale = noise_scale
        self.net = nn.Linear(d_model, 3)
        self.rise = nn.Parameter(torch.tensor(float(steepness)))
        self.register_buffer("threshold_logit", torch.tensor(math.log(threshold / (1 - threshold))))
        self.threshold_logit: Tensor
        with torch.no_grad():
            self.net.weight.mul_(0.1)
            self.net.bias.copy_(torch.tensor([-2.0, 0.0, 0.0]))

    def need(
        self, hidden_states: Float[Tensor, "batch time d_model"], step: Step
    ) -> Float[Tensor, "batch time"]:
        """Every token asks semantic memory: this router has no separate question of need."""
        del step
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        return hidden_states.new_ones(hidden_states.shape[:-1], dtype=dtype)

    def choose(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        familiarity: Float[Tensor, "batch time"],
        step: Step,
    ) -> tuple[Float[Tensor, "batch time 3"], Int[Tensor, "batch time"]]:
        """Return the probabilities of the three routes and the route."""
        logits = full_precision(self.net, hidden_states)
        tipping = torch.sigmoid(self.threshold_logit + step.control.threshold_shift)
        lift = self.rise * (familiarity.detach() - tipping)
        logits = logits + torch.stack([torch.zeros_like(lift), lift, torch.zeros_like(lift)], -1)
        if step.noise is not None and self.noise_scale > 0:
            logits = logits + self.noise_scale * gumbel_noise(step.noise[..., :3]).to(logits.dtype)
        return logits.softmax(-1), logits.argmax(-1)

    def credit(
        self, probabilities: Float[Tensor, "batch time 3"]
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Return the probabilities that the gradients of the retrieval and of the semantic answer move:
        each its own route's.
        """
        return probabilities[..., Route.EPISODIC], probabilities[..., Route.SEMANTIC]
