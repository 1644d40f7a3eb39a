"""Parts of attention that can be put together: the weighted mean of the values of some tokens, and the
logarithm of the weight that they had.

Two parts over disjoint tokens make the attention over both, head by head::

    o = (exp(l_near) o_near + exp(l_far) o_far) / (exp(l_near) + exp(l_far))

It does not matter where a part comes from. A *predicted* remote part with little mass fades by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Part:
    """Attention over some of the tokens.

    Attributes:
        value: mean of their values, weighted by softmax; zero where there are no tokens.
        log_mass: log-sum-exp of the scores, in float32 at least; minus infinity where there are no tokens.
    """

    value: Float[Tensor, "*axes d_head"]
    log_mass: Float[Tensor, "*axes"]


def remote_share(near: Part, remote: Part) -> Float[Tensor, "*axes"]:
    """Return the share of the softmax that falls to the remote part, in [0, 1)."""
    return torch.sigmoid(remote.log_mass - near.log_mass)


def merge(near: Part, remote: Part) -> Float[Tensor, "*axes d_head"]:
    """Return the attention over the tokens of both parts. The near part is never empty."""
    share = remote_share(near, remote).to(near.value.dtype)
    return near.value + share[..., None] * (remote.value - near.value)
