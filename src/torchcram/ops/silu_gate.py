"""A gate: a value times the SiLU of another (gated linear units, Dauphin et al. 2017, Shazeer 2020).

The two are all that is kept for the backward pass, and nothing is allotted beside results and gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu


def silu_gate_reference(
    value: Float[Tensor, "*shape"], gate: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """``value * silu(gate)``, with ``silu(x) = x sigmoid(x)``."""
    return value * silu(gate)


def silu_gate(value: Float[Tensor, "*shape"], gate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``value * silu(gate)``: fast form of :func:`silu_gate_reference`, with the same arguments, result and
    gradients.

    Raises:
        RuntimeError: if the gradients are differentiated again.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or value.dtype != gate.dtype:
        return silu_gate_reference(value, gate)
    return _SiLUGate.apply(value, gate)


class _SiLUGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(value, gate)
        return silu(gate).mul_(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        value, gate = ctx.saved_tensors
        for_gate = grad * value
        torch.ops.aten.silu_backward.grad_input(for_gate, gate, grad_input=for_gate)
        return silu(gate).mul_(grad), for_gate
