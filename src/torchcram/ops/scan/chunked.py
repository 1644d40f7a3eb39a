"""The gated linear recurrence in few sequential steps (some 25 for each factor of 25 in T), for values and
gradients, with memory linear in T.

Time is cut into chunks. All chunks run in parallel from a zero state (one loop over the position inside a
chunk); from chunk to chunk the state follows the same recurrence, with the chunks' products as decays, so
that the carrying is a shorter scan. No division and no logarithm: nothing overflows, however long the gap or
strong the decay. The gradient of a linear recurrence is the same recurrence run backwards. Complex numbers
are computed as two real
*planes*: PyTorch has no vectorised complex multiply-add on CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchcram.ops.kernels import kernels_for

# Longest chunk, and the length up to which steps are taken one by one: measured on CPU, see benchmarks/.
CHUNK, SHORT = 24, 16
# Real and imaginary part, or the real one alone.
Planes = tuple[Tensor, ...]


def scan(
    decay: Inexact[Tensor, "batch time state"],
    inputs: Inexact[Tensor, "batch time state"],
    initial: Inexact[Tensor, "batch state"],
) -> Inexact[Tensor, "batch time state"]:
    """``s_t = decay_t s_{t-1} + inputs_t``: fast form of :func:`torchcram.ops.scan.scan_reference`, with the
    same arguments, result and gradients.
    """
    states = scan_planes(_planes(decay), _planes(inputs), _planes(initial))
    return torch.complex(*states) if len(states) == 2 else states[0]


def scan_planes(decay: Planes, inputs: Planes, initial: Planes) -> Planes:
    """``s_t = decay_t s_{t-1} + inputs_t`` in planes: callers of :func:`scan` that have the parts at hand
    need not join and part them.
    """
    if not torch.is_grad_enabled():
        return tuple(runner(inputs[0])(decay, inputs, initial))
    return tuple(_Scan.apply(*decay, *inputs, *initial))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *planes: Tensor) -> Planes:
        decay, inputs, initial = _thirds(planes)
        states = runner(inputs[0])(decay, inputs, initial)
        ctx.save_for_backward(*decay, *states, *initial)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> Planes:
        decay, states, initial = _thirds(ctx.saved_tensors)
        # d loss / d s_t collects what s_t contributes to itself and, through decay_{t+1}, to every later
        # state.
        following = _conjugate(
            tuple(torch.cat([plane[:, 1:], torch.zeros_like(plane[:, :1])], 1) for plane in decay)
        )
        grad_inputs = runner(grad[0])(
            following, grad, tuple(torch.zeros_like(plane) for plane in initial), backwards=True
        )
        before = tuple(
            torch.cat([start[:, None], plane[:, :-1]], 1)
            for start, plane in zip(initial, states, strict=True)
        )
        first, own = (tuple(plane[:, :1] for plane in planes) for planes in (grad_inputs, decay))
        grad_initial = tuple(plane.sum(1) for plane in _product(first, _conjugate(own)))
        return *_product(grad_inputs, _conjugate(before)), *grad_inputs, *grad_initial


def runner(plane: Tensor) -> Callable[..., Planes]:
    """Return what computes the states: the Triton kernel on a GPU, where its package is installed, else
    :func:`run`.
    """
    if not kernels_for(plane):
        return run
    from torchcram.ops.scan import triton

    return triton.run


def run(decay: Planes, inputs: Planes, initial: Planes, *, backwards: bool = False) -> Planes:
    """``s_t = decay_t s_{t-1} + inputs_t``, all states; ``backwards`` runs from the last step to the first,
    ``s_t = decay_t s_{t+1} + inputs_t``.
    """
    time = inputs[0].shape[1]
    if time == 0:
        return tuple(plane.clone() for plane in inputs)
    if time <= SHORT:
        return _one_by_one(decay, inputs, initial, backwards=backwards)
    chunk = min(CHUNK, math.isqrt(time))
    product, states = _chunks(decay, chunk, filled=1.0), _chunks(inputs, chunk, filled=0.0)
    order = range(chunk)[::-1] if backwards else range(chunk)
    for last, t in pairwise(order):
        _add_product(_at(states, t), _at(product, t), _at(states, last))
        _multiply(_at(product, t), _at(product, last))
    carried = run(_at(product, order[-1]), _at(states, order[-1]), initial, backwards=backwards)
    _add_product(
        states,
        product,
        tuple(plane[:, :, None] for plane in _entering(carried, initial, backwards=backwards)),
    )
    return tuple(plane.flatten(1, 2)[:, :time] for plane in states)


def _one_by_one(decay: Planes, inputs: Planes, initial: Planes, *, backwards: bool) -> Planes:
    states = tuple(plane.clone() for plane in inputs)
    before = initial
    order = range(states[0].shape[1])
    for t in order[::-1] if backwards else order:
        now = tuple(plane[:, t] for plane in states)
        _add_product(now, tuple(plane[:, t] for plane in decay), before)
        before = now
    return states


def _entering(carried: Planes, initial: Planes, *, backwards: bool) -> Planes:
    """Return the state that enters each chunk: that after the one before it, in the direction of the walk."""
    if backwards:
        return tuple(
            torch.cat([plane[:, 1:], start[:, None]], 1)
            for plane, start in zip(carried, initial, strict=True)
        )
    return tuple(
        torch.cat([start[:, None], plane[:, :-1]], 1) for plane, start in zip(carried, initial, strict=True)
    )


def _planes(numbers: Tensor) -> Planes:
    return (numbers.real, numbers.imag) if numbers.is_complex() else (numbers,)


def _thirds(planes: Planes) -> tuple[Planes, Planes, Planes]:
    count = len(planes) // 3
    return planes[:count], planes[count : 2 * count], planes[2 * count :]


def _chunks(planes: Planes, chunk: int, *, filled: float) -> Planes:
    """Return fresh planes ``[batch, chunks, chunk, state]``, filled up at the end with a number that is
    real.
    """
    shape = (planes[0].shape[0], -(-planes[0].shape[1] // chunk) * chunk, planes[0].shape[2])
    fresh = tuple(plane.new_full(shape, filled if part == 0 else 0.0) for part, plane in enumerate(planes))
    for whole, plane in zip(fresh, planes, strict=True):
        whole[:, : plane.shape[1]] = plane
    return tuple(plane.unflatten(1, (-1, chunk)) for plane in fresh)


def _at(planes: Planes, t: int) -> Planes:
    return tuple(plane[:, :, t] for plane in planes)


def _conjugate(planes: Planes) -> Planes:
    return (planes[0], -planes[1]) if len(planes) == 2 else planes


def _product(one: Planes, other: Planes) -> Planes:
    result = tuple(plane.clone() for plane in one)
    _multiply(result, other)
    return result


def _add_product(total: Planes, one: Planes, other: Planes) -> None:
    """``total += one * other``, in place."""
    total[0].addcmul_(one[0], other[0])
    if len(total) == 2:
        total[0].addcmul_(one[1], other[1], value=-1)
        total[1].addcmul_(one[0], other[1]).addcmul_(one[1], other[0])


def _multiply(one: Planes, other: Planes) -> None:
    """``one *= other``, in place."""
    if len(one) == 1:
        one[0].mul_(other[0])
        return
    real = (one[0] * other[0]).addcmul_(one[1], other[1], value=-1)
    one[1].mul_(other[0]).addcmul_(one[0], other[1])
    one[0].copy_(real)
