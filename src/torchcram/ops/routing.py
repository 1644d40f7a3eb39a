"""Discrete choices with useful gradients: straight-through mixing of memories, and thresholds with noise.

A route is hard in the forward pass. In the backward pass its probability receives the inner product of the
output's gradient with what the route would have added (Bengio et al. 2013). For tokens whose retrieval was
not computed that product is unknown: it is estimated from the explored ones, each counted with the inverse of
its probability of being explored, so that the expectation is unchanged. Against it stands the price of a
read.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def straight_through_mix_reference(
    value: Float[Tensor, "batch time d_model"],
    chosen: Bool[Tensor, "batch time"],
    probability: Float[Tensor, "batch time"],
    weight: Float[Tensor, "batch time"],
) -> Float[Tensor, "batch time d_model"]:
    """``chosen * value``, with the gradient of ``probability * value`` for the probability.

    Gradients: ``value`` gets them where chosen; ``probability`` gets ``<gradient, value> * weight``
    everywhere.
    """
    pulled = (probability - probability.detach()) * weight
    return value * chosen[..., None] + pulled[..., None] * value.detach()


def straight_through_mix(
    value: Float[Tensor, "batch time d_model"],
    chosen: Bool[Tensor, "batch time"],
    probability: Float[Tensor, "batch time"],
    weight: Float[Tensor, "batch time"],
) -> Float[Tensor, "batch time d_model"]:
    """``chosen * value``: fast form of :func:`straight_through_mix_reference`, with the same arguments,
    result (in the precision of ``value``) and gradients.
    """
    if torch.compiler.is_compiling():
        return straight_through_mix_reference(value, chosen, probability, weight)
    return _StraightThrough.apply(value, chosen, probability, weight)


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, chosen: Tensor, probability: Tensor, weight: Tensor) -> Tensor:
        del probability, weight
        return value * chosen[..., None]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
        del output
        value, chosen, probability, weight = inputs
        ctx.save_for_backward(value, chosen, weight)
        ctx.dtype = probability.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        value, chosen, weight = ctx.saved_tensors
        for_value = grad * chosen[..., None] if ctx.needs_input_grad[0] else None
        for_probability = (
            ((grad * value.detach()).sum(-1) * weight).to(ctx.dtype) if ctx.needs_input_grad[2] else None
        )
        return for_value, None, for_probability, None


def priced(probability: Float[Tensor, "..."], *, steady: bool) -> Float[Tensor, "..."]:
    """``probability``; if ``steady``, with the gradient of ``-log(1 - probability)``: what the price of a
    read is charged on.

    Through a sigmoid a steady price pulls the router's logit down with the probability itself. The plain
    gradient fades as ``p (1 - p)``: a router that has become sure of every token, before reads had a price,
    can hardly be moved by any. Deviation: ours; the paper's price has no stated form.
    """
    if not steady:
        return probability
    barrier = -torch.log((1 - probability).clamp_min(torch.finfo(probability.dtype).eps))
    return probability.detach() + (barrier - barrier.detach())


def logistic_noise(uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``log(u / (1 - u))`` of uniform noise in [0, 1): logistic noise, the difference of two Gumbel
    variables, for binary Gumbel-softmax.
    """
    return torch.logit(uniform, eps=1e-6)


def gumbel_noise(uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``-log(-log(u))`` of uniform noise in [0, 1): standard Gumbel noise."""
    return -torch.log(-torch.log(uniform.clamp(1e-6, 1 - 1e-6)))
