"""Root-mean-square normalisation (Zhang & Sennrich 2019) with a backward pass of its own.

On a CPU autograd takes PyTorch's own through a dozen passes over the tensor; four will do. Elsewhere, and where a graph is being captured,
PyTorch's has its kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def rms_norm_reference(x: Float[Tensor, "*batch width"], weight: Float[Tensor, " width"] | None = None) -> Float[Tensor, "*batch width"]:
    """Return ``x`` over the root of its mean square along the last dimension, times ``weight``: PyTorch's own."""
    return nn.functional.rms_norm(x, x.shape[-1:], weight)


def rms_norm(x: Float[Tensor, "*batch width"], weight: Float[Tensor, " width"] | None = None) -> Float[Tensor, "*batch width"]:
    """Fast form of :func:`rms_norm_reference`: same arguments, same result, same gradients, which cannot be differentiated again."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return rms_norm_reference(x, weight)
    if weight is not None and weight.dtype != x.dtype:
        return rms_norm_reference(x, weight)
    return _RMSNorm.apply(x, weight)


class RMSNorm(nn.RMSNorm):
    """PyTorch's module, with the same parameters, by :func:`rms_norm`."""

    def __init__(self, width: int):
        super().__init__(width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Return the normalised ``x``."""
        return rms_norm(x, self.weight)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(max(1, x.shape[-1]))
        scale = square.add_(torch.finfo(x.dtype).eps).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit if weight is None else unit * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        unit, scale, weight = ctx.saved_tensors
        along = grad * unit
        if weight is None:
            return torch.addcmul(grad, unit, along.mean(-1, keepdim=True), value=-1).mul_(scale), None
        mean = (along @ weight).div_(max(1, unit.shape[-1]))[..., None]
        return torch.addcmul(grad * weight, unit, mean, value=-1).mul_(scale), along.sum_to_size(weight.shape)
