"""A static hybrid in the manner of Jamba (Lieber et al. 2024, arXiv 2403.19887): recurrence everywhere,
attention in every k-th layer, always on.

Deviation: Jamba's attention layers have no recurrence of their own. Here every block has our working memory,
so that the attention layers differ from the others by their attention and by nothing else.
"""

from __future__ import annotations

from torchcram.baselines.static import StaticBlock
from torchcram.strict import require_positive


class StaticHybridBlock(StaticBlock):
    """``x + working(norm(x))``, in every k-th layer ``x + attention(norm(x))``, then ``x + mlp(x)``.

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
        require_positive(attention_every=attention_every)
        attends = (layer + 1) % attention_every == 0
        super().__init__(
            d_model,
            working=working,
            state_size=state_size,
            attends=attends,
            heads=heads,
            window=window,
            mlp_ratio=mlp_ratio,
        )
