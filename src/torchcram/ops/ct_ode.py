"""The paper's continuous-time expert (section 3): inner Euler steps of a gated neural ODE, once per token.

``h(k+1) = h(k) + dt sigmoid(tau) tanh(W1 h(k) + W2 x)`` for ``k = 0 .. steps-1`` with ``dt = 1 / steps``:
explicit Euler, first order in ``dt``, for ``dh/ds = sigmoid(tau) tanh(W1 h + W2 x)`` over ``s`` in [0, 1].
The real gap enters through the gate ``tau`` only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def ct_ode_step(
    state: Float[Tensor, "*batch state"],
    drive: Float[Tensor, "*batch state"],
    gate: Float[Tensor, "*batch state"],
    recurrent: Float[Tensor, "state state"],
    *,
    steps: int,
) -> Float[Tensor, "*batch state"]:
    """``h(k+1) = h(k) + sigmoid(gate) / steps tanh(W1 h(k) + drive)``, ``steps`` times: one token.

    Args:
        state: ``h(0)``.
        drive: ``W2 x``, constant during the integration.
        gate: ``tau``, before the sigmoid.
        recurrent: ``W1``, applied as ``h @ W1.T``.
        steps: number K of inner steps, at least 1.
    """
    rate = torch.sigmoid(gate) / steps
    for _ in range(steps):
        state = state + rate * torch.tanh(state @ recurrent.T + drive)
    return state
