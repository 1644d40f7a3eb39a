"""A block without a router: working memory and attention, each there or not, always on for every token.

Three baselines are this block.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.baselines.two_way import two_way_decision
from torchcram.memory.episodic import EpisodicMemory
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.residual import ResidualBlock
from torchcram.types import BlockOutput, MemoryState, Step


class StaticBlock(ResidualBlock):
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
        super().__init__(d_model, working=working, state_size=state_size, attends=attends)
        self.episodic = EpisodicMemory(d_model, heads=heads, window=window) if attends else None
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        episodic = None if self.episodic is None else self.episodic.init_state(batch_size)
        return replace(super().init_state(batch_size), episodic=episodic)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        step: Step,
        state: MemoryState | None = None,
    ) -> BlockOutput:
        """Mix along time.

        See :class:`torchcram.types.SequenceMixer`. ``step.control.reads == "none"`` switches attention off.
        """
        state = self.init_state(len(step.gap)) if state is None else state
        x, working = self.work(hidden_states, step, state.working)
        episodic = state.episodic
        reads = self.episodic is not None and step.control.reads != "none"
        read = step.masked(torch.full(step.gap.shape, reads, device=step.gap.device))
        if self.episodic is not None:
            assert episodic is not None
            h = self.memory_norm(x)
            memory, time = self.episodic.write(h, step.gap, episodic, mask=step.mask)
            dense = self.selection.dense
            x = x + self.episodic.read(h, time, memory, read, before=episodic, dense=dense)
            episodic = self.episodic.forget(memory)
        return BlockOutput(
            hidden_states=self.feed(x),
            state=replace(state, working=working, episodic=episodic),
            decision=two_way_decision(read, read.to(step.gap.dtype)),
        )
