"""The feed-forward network that ends every block: two linear maps with a GELU between."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from torchcram.ops.init import small_start
from torchcram.ops.rms_norm import RMSNorm
from torchcram.strict import require_positive


class FeedForward(nn.Module):
    """``out(gelu(inner(norm(x))))``, to be added to ``x``.

    Args:
        d_model: width.
        ratio: inner width over ``d_model``.
    """

    def __init__(self, d_model: int, *, ratio: float = 4.0):
        super().__init__()
        require_positive(mlp_ratio=ratio)
        hidden = max(1, int(ratio * d_model))
        self.norm = RMSNorm(d_model)
        self.inner, self.activation, self.out = (
            nn.Linear(d_model, hidden),
            nn.GELU(),
            nn.Linear(hidden, d_model),
        )
        small_start(self.out)

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        """Return what to add to ``x``."""
        return self.out(self.activation(self.inner(self.norm(x))))
