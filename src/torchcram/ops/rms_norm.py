"""Root-mean-square normalisation (Zhang & Sennrich 2019) with a backward pass of its own.

On a CPU autograd takes PyTorch's own through a dozen passes over the tensor; half as many will do, and the
input is all that is kept. Elsewhere, and where a graph is being captured, PyTorch's has its kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def rms_norm_reference(
    x: Float[Tensor, "*batch width"], weight: Float[Tensor, " width"] | None = None
) -> Float[Tensor, "*batch width"]:
    """``x / sqrt(mean(x^2) + eps) * weight``, the mean along the last dimension: PyTorch's own."""
    return nn.functional.rms_norm(x, x.shape[-1:], weight)


def rms_norm(
    x: Float[Tensor, "*batch width"], weight: Float[Tensor, " width"] | None = None
) -> Float[Tensor, "*batch width"]:
    """``x / sqrt(mean(x^2) + eps) * weight``: fast form of :func:`rms_norm_reference`, with the same
    arguments, result and gradients.
    """
    if (
        x.device.type != "cpu"
        or x.dtype not in (torch.float32, torch.float64)
        or torch.compiler.is_compiling()
    ):
        return rms_norm_reference(x, weight)
    if weight is not None and weight.dtype != x.dtype:
        return rms_norm_reference(x, weight)
    # Without gradients the same arithmetic, to the last bit, without what autograd costs a single step.
    return _RMSNorm.apply(x, weight) if torch.is_grad_enabled() else _RMSNorm.forward(x, weight)


class RMSNorm(nn.RMSNorm):
    """``x / sqrt(mean(x^2) + eps) * weight``: PyTorch's module, with the same parameters, by
    :func:`rms_norm`.
    """

    def __init__(self, width: int):
        super().__init__(width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Return the normalised ``x``."""
        return rms_norm(x, self.weight)


class _RMSNorm(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None) -> Tensor:
        unit = x * _scale(x)
        return unit if weight is None else unit * weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        scale, along = _scale(x), grad * x
        if weight is None:
            return torch.addcmul(x * (-along.mean(-1, keepdim=True) * scale.pow(3)), grad, scale), None
        # Matrix-vector products, unlike "@", stay in full precision where a backward pass runs under
        # autocast.
        rows = along.reshape(-1, len(weight))
        mean = torch.mv(rows, weight).view_as(scale) / len(weight)
        return torch.addcmul(x * (-mean * scale.pow(3)), grad * weight, scale), torch.mv(
            rows.T, scale.flatten()
        )


def _scale(x: Tensor) -> Tensor:
    """What each row is multiplied by; one pass, nothing of the size of ``x`` is allotted."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / max(1, x.shape[-1])
    return (square + torch.finfo(x.dtype).eps).rsqrt()
