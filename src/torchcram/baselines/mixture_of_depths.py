"""Mixture-of-Depths: a router lets a fixed share of the tokens through the block (Raposo et al. 2024, arXiv
2404.02258), from its equations.

    score = w . norm(x)                           one number a token
    x = x + sigmoid(score) * block(x)             for tokens that pass; the others stay as they are

The block is attention and a feed-forward network. In training the ``capacity`` share of each sequence's
tokens with the highest scores passes. That looks ahead: whether a token passes hangs on later ones. So in
evaluation (``module.eval()``) a small predictor decides, causally, from the token's own state; it learns
beside, from the top scores, by binary cross-entropy, and no gradient of it reaches the trunk. What a token
reads are the keys of tokens that passed *this* block before it: one that does not pass neither reads nor
writes keys. A token that passes counts as a read. The price of a read moves only the predictor, and so what
passes in evaluation.
Deviation: every layer is routed (in the paper every other one is), and the score is squashed to (0, 1), so
that a young block is neither switched off nor inverted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from torchcram.baselines.activated import ActivatedMemory
from torchcram.baselines.two_way import two_way_decision
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.residual import ResidualBlock
from torchcram.memory.router import full_precision
from torchcram.ops.collective import step_mean
from torchcram.ops.routing import priced
from torchcram.types import BlockOutput, MemoryState, MixingCost, Step


def top_share(
    score: Float[Tensor, "batch time"], share: float, mask: Bool[Tensor, "batch time"] | None = None
) -> Bool[Tensor, "batch time"]:
    """Return the ``share`` of each sequence's real steps with the highest scores, rounded up; the earlier
    one of equals.
    """
    real = torch.ones_like(score, dtype=torch.bool) if mask is None else mask
    order = score.detach().masked_fill(~real, -torch.inf).argsort(dim=1, descending=True, stable=True)
    most = torch.ceil(share * real.sum(1, keepdim=True) - 1e-9)
    return order.argsort(1) < most


class MixtureOfDepthsBlock(ResidualBlock):
    """``x + sigmoid(w . norm(x)) (a + mlp(x + a))`` with ``a = attention(norm(x))``, for the tokens that
    pass.

    Args:
        d_model: width.
        capacity: share of each sequence's tokens that pass in training, in (0, 1]; the paper's best is an
            eighth.
        heads: number of heads.
        window: how many of the latest tokens that passed are read; None for all.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    routed: ClassVar[bool] = True

    def __init__(
        self,
        d_model: int,
        *,
        capacity: float = 0.125,
        heads: int = 4,
        window: int | None = None,
        mlp_ratio: float = 4.0,
    ):
        super().__init__(d_model)
        if not 0 < capacity <= 1:
            raise ValueError(f"capacity {capacity} must lie above 0 and be at most 1")
        self.capacity = capacity
        self.router = nn.Linear(d_model, 1)
        self.predictor = nn.Sequential(nn.Linear(d_model, 32), nn.SiLU(), nn.Linear(32, 1))
        self.episodic = ActivatedMemory(d_model, heads=heads, window=window)
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)
        nn.init.constant_(self.router.bias, 2.0)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return replace(super().init_state(batch_size), episodic=self.episodic.init_state(batch_size))

    def fast_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that decide: they want a faster learning rate than the trunk."""
        return [*self.router.parameters(), *self.predictor.parameters()]

    def cost(self) -> MixingCost:
        """Return what mixing along time costs: the router and the predictor see every token."""
        size = sum(parameter.numel() for parameter in self.fast_parameters())
        return replace(super().cost(), flops_token=2.0 * size, bytes_token=4.0 * size)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        step: Step,
        state: MemoryState | None = None,
    ) -> BlockOutput:
        """Mix along time.

        See :class:`torchcram.types.SequenceMixer`. Nothing is explored; ``step.control.reads`` lets all
        tokens pass, or none.
        """
        state = self.init_state(len(step.gap)) if state is None else state
        assert state.episodic is not None
        h = self.memory_norm(hidden_states)
        score = full_precision(self.router, h)[..., 0]
        guess = full_precision(self.predictor, h.detach())[..., 0]
        top = top_share(score, self.capacity, step.mask)
        passed = self._passed(top, guess, step)

        attended, memory = self.episodic.attend(h, step.gap, state.episodic, passed, step.mask)
        gained = self._through_block(hidden_states[passed], attended) * torch.sigmoid(score[passed])[:, None]
        added = torch.zeros_like(hidden_states).masked_scatter(
            passed[..., None], gained.to(hidden_states.dtype)
        )

        probability = torch.sigmoid(guess)
        doubt = binary_cross_entropy_with_logits(guess, top.to(guess.dtype), reduction="none")
        reading = priced(probability, steady=step.control.steady)
        return BlockOutput(
            hidden_states=hidden_states + added,
            state=MemoryState(episodic=memory),
            decision=two_way_decision(passed, probability, written=passed),
            losses={"predictor": step_mean(doubt, step.mask), "price": step_mean(reading, step.mask)},
            owner=self,
        )

    def _passed(self, top: Tensor, guess: Tensor, step: Step) -> Tensor:
        reads = step.control.reads
        if reads == "routed":
            return step.masked(top if self.training else guess > 0)
        return step.masked(torch.full_like(top, reads == "all"))

    def _through_block(
        self, x: Float[Tensor, "tokens d_model"], attended: Float[Tensor, "tokens d_model"]
    ) -> Float[Tensor, "tokens d_model"]:
        """What attention and feed-forward network together add to the tokens that pass."""
        read = self.episodic.out(attended)
        return read + self.mlp((x + read)[None])[0]
