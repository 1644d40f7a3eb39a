"""What every mixer has around its memories: pre-norm residual branches, and last a feed-forward network.

x = x + working(norm(x), gap)        where there is a working memory
x = x + ...                          what the mixer adds
x = x + mlp(norm(x))
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from torchcram.accounting import attention_cost
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.working import build_working_memory
from torchcram.ops.rms_norm import RMSNorm
from torchcram.ops.selection import Gathered, Selection
from torchcram.types import BlockOutput, MemoryState, MixingCost, Step


class ResidualBlock(nn.Module):
    """Norms, working memory and residual branches; a mixer adds its memories and, last, ``self.mlp``.

    Args:
        d_model: width.
        working: kind of the working memory, or None for none.
        state_size: its channels.
        attends: whether there is a memory beside it, whose input is normed.

    Attributes:
        routed: whether a router learns, so that training leads it through the phases.
        selection: how tokens are taken; :class:`torchcram.ops.selection.Everything` makes the block
            exportable.
    """

    routed: ClassVar[bool] = False

    def __init__(
        self, d_model: int, *, working: str | None = None, state_size: int = 64, attends: bool = True
    ):
        super().__init__()
        self.d_model = d_model
        self.working_norm = None if working is None else RMSNorm(d_model)
        self.memory_norm: nn.Module = RMSNorm(d_model) if attends else nn.Identity()
        self.working = (
            None if working is None else build_working_memory(working, d_model, state_size=state_size)
        )
        self.selection: Selection = Gathered()
        self.mlp: FeedForward

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState(working=None if self.working is None else self.working.init_state(batch_size))

    def fast_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that want a faster learning rate than the trunk: none."""
        return []

    def after_step(self, output: BlockOutput) -> None:
        """Take in what a training step taught: nothing."""
        del output

    def cost(self) -> MixingCost:
        """Return what mixing along time costs: attention."""
        return attention_cost(self.d_model)

    def work(
        self, hidden_states: Float[Tensor, "batch time d_model"], step: Step, state: Tensor | None
    ) -> tuple[Float[Tensor, "batch time d_model"], Tensor | None]:
        """Return ``x + working(norm(x), gap)`` and the working memory's state; ``x`` itself without one."""
        if self.working is None or self.working_norm is None:
            return hidden_states, state
        assert state is not None
        update, after = self.working(
            self.working_norm(hidden_states), step.gap, state, step.horizon, step.mask
        )
        return hidden_states + update, after

    def feed(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        """Return ``x + mlp(norm(x))``."""
        return x + self.mlp(x)
