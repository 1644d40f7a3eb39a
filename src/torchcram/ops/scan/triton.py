"""The gated linear recurrence as a Triton kernel: one program walks along time for a block of channels, a
tile of steps at a time.

Inside a tile the steps are combined by an associative scan, and the state at its end is carried to the next
one. No division and no logarithm, as in ``chunked``. Needs the package ``triton`` (extra ``kernels``);
imported only where it is used. Tested without a GPU under ``TRITON_INTERPRET=1``: ``make test-kernels``.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

# Sides of a tile.
BLOCK_STEPS, BLOCK_STATES = 64, 32
# Real and imaginary part, or the real one alone.
Planes = tuple[Tensor, ...]


def run(decay: Planes, inputs: Planes, initial: Planes, *, backwards: bool = False) -> Planes:
    """``s_t = decay_t s_{t-1} + inputs_t``, all states, as :func:`torchcram.ops.scan.chunked.run`; no
    gradients.
    """
    decay, inputs, initial = (
        tuple(plane.contiguous() for plane in planes) for planes in (decay, inputs, initial)
    )
    states = tuple(torch.empty_like(plane) for plane in inputs)
    batch, time, size = inputs[0].shape
    if states[0].numel():
        grid = (batch, triton.cdiv(size, BLOCK_STATES))
        wide = tl.float64 if inputs[0].dtype == torch.float64 else tl.float32
        tile = {
            "BACKWARDS": backwards,
            "BLOCK_STEPS": BLOCK_STEPS,
            "BLOCK_STATES": BLOCK_STATES,
            "WIDE": wide,
        }
        kernel = _complex_kernel if len(states) == 2 else _real_kernel
        with torch.cuda.device_of(inputs[0]):
            kernel[grid](*decay, *inputs, *initial, *states, time, size, **tile)
    return states


@triton.jit
@no_type_check
def _real_kernel(
    decay,
    inputs,
    initial,
    states,
    time,
    size,
    BACKWARDS: tl.constexpr,
    BLOCK_STEPS: tl.constexpr,
    BLOCK_STATES: tl.constexpr,
    WIDE: tl.constexpr,
):
    row, s = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK_STATES + tl.arange(0, BLOCK_STATES)
    inside, steps = s < size, tl.arange(0, BLOCK_STEPS)
    carry = tl.load(initial + row * size + s, mask=inside, other=0.0).to(WIDE)
    for begin in range(0, time, BLOCK_STEPS):
        t = begin + steps
        there = (t < time)[:, None] & inside
        place = (row * time + (time - 1 - t if BACKWARDS else t)[:, None]) * size + s
        a, b = (
            tl.load(decay + place, mask=there, other=1.0).to(WIDE),
            tl.load(inputs + place, mask=there, other=0.0).to(WIDE),
        )
        a, b = tl.associative_scan((a, b), 0, _combine_real)
        state = a * carry[None, :] + b
        tl.store(states + place, state, mask=there)
        carry = tl.sum(tl.where((steps == BLOCK_STEPS - 1)[:, None], state, 0.0), 0)


@triton.jit
@no_type_check
def _complex_kernel(
    decay_re,
    decay_im,
    inputs_re,
    inputs_im,
    initial_re,
    initial_im,
    states_re,
    states_im,
    time,
    size,
    BACKWARDS: tl.constexpr,
    BLOCK_STEPS: tl.constexpr,
    BLOCK_STATES: tl.constexpr,
    WIDE: tl.constexpr,
):
    row, s = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK_STATES + tl.arange(0, BLOCK_STATES)
    inside, steps = s < size, tl.arange(0, BLOCK_STEPS)
    carry_re = tl.load(initial_re + row * size + s, mask=inside, other=0.0).to(WIDE)
    carry_im = tl.load(initial_im + row * size + s, mask=inside, other=0.0).to(WIDE)
    for begin in range(0, time, BLOCK_STEPS):
        t = begin + steps
        there = (t < time)[:, None] & inside
        place = (row * time + (time - 1 - t if BACKWARDS else t)[:, None]) * size + s
        a_re, a_im = (
            tl.load(decay_re + place, mask=there, other=1.0).to(WIDE),
            tl.load(decay_im + place, mask=there, other=0.0).to(WIDE),
        )
        b_re, b_im = (
            tl.load(inputs_re + place, mask=there, other=0.0).to(WIDE),
            tl.load(inputs_im + place, mask=there, other=0.0).to(WIDE),
        )
        a_re, a_im, b_re, b_im = tl.associative_scan((a_re, a_im, b_re, b_im), 0, _combine_complex)
        state_re = a_re * carry_re[None, :] - a_im * carry_im[None, :] + b_re
        state_im = a_re * carry_im[None, :] + a_im * carry_re[None, :] + b_im
        tl.store(states_re + place, state_re, mask=there)
        tl.store(states_im + place, state_im, mask=there)
        last = (steps == BLOCK_STEPS - 1)[:, None]
        carry_re, carry_im = (
            tl.sum(tl.where(last, state_re, 0.0), 0),
            tl.sum(tl.where(last, state_im, 0.0), 0),
        )


@triton.jit
@no_type_check
def _combine_real(a, b, c, d):
    """First ``s -> a s + b``, then ``s -> c s + d``."""
    return a * c, b * c + d


@triton.jit
@no_type_check
def _combine_complex(a_re, a_im, b_re, b_im, c_re, c_im, d_re, d_im):
    """The same with complex numbers."""
    return (
        a_re * c_re - a_im * c_im,
        a_re * c_im + a_im * c_re,
        b_re * c_re - b_im * c_im + d_re,
        b_re * c_im + b_im * c_re + d_im,
    )
