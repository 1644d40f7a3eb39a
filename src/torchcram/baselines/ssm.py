"""Working memory alone: what the recurrent state can do without any attention."""

from __future__ import annotations

from torchcram.baselines.static import StaticBlock


class SSMBlock(StaticBlock):
    """``x + working(norm(x))``, then ``x + mlp(x)``: no token reads.

    Args:
        d_model: width.
        working: ``"time_aware_ssm"`` or ``"ct_ode"``.
        state_size: channels of the recurrence.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    def __init__(
        self, d_model: int, *, working: str = "time_aware_ssm", state_size: int = 64, mlp_ratio: float = 4.0
    ):
        super().__init__(d_model, working=working, state_size=state_size, attends=False, mlp_ratio=mlp_ratio)
