"""A Transformer block, dense or with a sliding window: every token reads.

The same episodic memory as CRAM's (rotary by time stamp), and nothing else that carries time.
"""

from __future__ import annotations

from torchcram.baselines.static import StaticBlock


class TransformerBlock(StaticBlock):
    """``x + attention(norm(x))``, then ``x + mlp(x)``: every token reads.

    Args:
        d_model: width.
        heads: number of heads.
        window: how many of the latest entries are read; None for all.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    def __init__(self, d_model: int, *, heads: int = 4, window: int | None = None, mlp_ratio: float = 4.0):
        super().__init__(d_model, working=None, attends=True, heads=heads, window=window, mlp_ratio=mlp_ratio)
