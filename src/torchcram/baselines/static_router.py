"""A learned static router: whether a token reads hangs on the token alone, whatever came before it.

This is what the paper's lower bound is about: CRAM's block with working and episodic memory, the same *need*,
the same price and the same exploration, but nothing is consolidated, and the router sees the embedding of the
step's own inputs and times, which the model hands to every layer: the hidden state of a deeper layer would
already know the context. Only the decision is blind; the read itself uses the hidden state, as everywhere.
With a ``read_share`` it is given how many of the tokens read, and learning decides which.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchcram.memory.block import CRAMBlock
from torchcram.memory.router import NeedFamiliarityRouter
from torchcram.ops.collective import world_concat
from torchcram.ops.rms_norm import rms_norm
from torchcram.types import BlockOutput, Step

# How fast the router's bias follows the read share, per training step.
FOLLOWS = 0.2


class StaticRouterBlock(CRAMBlock):
    """``x + working(norm(x))``, then ``x + read(norm(x))`` where ``need(norm(token))``, then ``x + mlp(x)``.

    It is CRAM's block without consolidation, routed by the token.

    Args:
        d_model: width.
        heads: heads of the episodic memory.
        window: bound of the episodic buffer in entries, or None.
        working: ``"time_aware_ssm"`` or ``"ct_ode"``.
        state_size: channels of the working memory.
        router_noise: scale of the router's noise in training; None for the router's own.
        mlp_ratio: width of the feed-forward network over ``d_model``.
        read_share: share of the tokens that read in this layer once it is routed: those in greatest need;
            None for as many as are worth their price.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        window: int | None = None,
        working: str = "time_aware_ssm",
        state_size: int = 64,
        router_noise: float | None = None,
        mlp_ratio: float = 4.0,
        read_share: float | None = None,
    ):
        if read_share is not None and not 0 < read_share < 1:
            raise ValueError(f"read_share {read_share} must lie strictly between 0 and 1")
        super().__init__(
            d_model,
            heads=heads,
            window=window,
            working=working,
            state_size=state_size,
            semantic="none",
            surprise=False,
            router_noise=router_noise,
            mlp_ratio=mlp_ratio,
        )
        self.read_share = read_share

    def after_step(self, output: BlockOutput) -> None:
        """Move the router's bias, one number for all tokens, so that the share of them that reads comes to
        the read share.
        """
        super().after_step(output)
        need = output.signals.get("need")
        if self.read_share is None or need is None:
            return
        seen = world_concat(need[~need.isnan()].float(), need.numel())
        assert isinstance(self.router, NeedFamiliarityRouter)
        with torch.no_grad():
            self.router.offset.sub_(FOLLOWS * torch.logit(seen.quantile(1 - self.read_share), eps=1e-6))

    def seen_by_router(self, h: Tensor, hidden_states: Tensor, step: Step) -> Tensor:
        """Return what the router decides from: the token, in the scale of a normed state."""
        del h
        return rms_norm(hidden_states if step.token is None else step.token)
