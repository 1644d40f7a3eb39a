"""The definition of the gated linear recurrence, one step at a time: slow, obvious, differentiable."""

from __future__ import annotations

import torch
from jaxtyping import Inexact
from torch import Tensor


def scan_reference(
    decay: Inexact[Tensor, "batch time state"],
    inputs: Inexact[Tensor, "batch time state"],
    initial: Inexact[Tensor, "batch state"],
) -> Inexact[Tensor, "batch time state"]:
    """``s_t = decay_t s_{t-1} + inputs_t`` with ``s_{-1} = initial``: all states, real or complex,
    elementwise in ``state``.
    """
    state, states = initial, []
    for t in range(decay.shape[1]):
        state = decay[:, t] * state + inputs[:, t]
        states.append(state)
    return torch.stack(states, 1) if states else torch.zeros_like(inputs)
