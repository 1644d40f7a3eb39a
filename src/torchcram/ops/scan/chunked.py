"""The gated linear recurrence in about 2 sqrt(T) sequential steps, for values and gradients, with memory linear in T.

Time is cut into chunks. All chunks run in parallel from a zero state (one loop over the position inside a chunk), then one loop over the
chunks carries the state along. No division and no logarithm: nothing overflows, however long the gap or strong the decay.
The gradient of a linear recurrence is the same recurrence run backwards.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.nn.functional import pad


def scan(
    decay: Inexact[Tensor, "batch time state"], inputs: Inexact[Tensor, "batch time state"], initial: Inexact[Tensor, "batch state"]
) -> Inexact[Tensor, "batch time state"]:
    """Fast form of :func:`torchcram.ops.scan.scan_reference`: same arguments, same result, same gradients."""
    return _Scan.apply(decay, inputs, initial)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
        states = _run(decay, inputs, initial)
        ctx.save_for_backward(decay, states, initial)
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, states, initial = ctx.saved_tensors
        # d loss / d s_t collects what s_t contributes to itself and, through decay_{t+1}, to every later state.
        following = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], 1).conj()
        grad_inputs = _run(following.flip(1), grad.flip(1), torch.zeros_like(initial)).flip(1)
        before = torch.cat([initial[:, None], states[:, :-1]], 1)
        return grad_inputs * before.conj(), grad_inputs, (decay[:, :1].conj() * grad_inputs[:, :1]).sum(1)


def _run(decay: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
    batch, time, size = inputs.shape
    if time == 0:
        return inputs.clone()
    chunk = max(1, math.isqrt(time))
    chunks = -(-time // chunk)
    fill = (0, 0, 0, chunks * chunk - time)
    decay = pad(decay, fill).view(batch, chunks, chunk, size).transpose(1, 2).contiguous()
    states = pad(inputs, fill).view(batch, chunks, chunk, size).transpose(1, 2).contiguous()
    for t in range(1, chunk):
        states[:, t].addcmul_(decay[:, t], states[:, t - 1])
        decay[:, t] *= decay[:, t - 1]
    carries, carry = [], initial
    for c in range(chunks):
        carries.append(carry)
        carry = torch.addcmul(states[:, -1, c], decay[:, -1, c], carry)
    states.addcmul_(decay, torch.stack(carries, 1)[:, None])
    return states.transpose(1, 2).reshape(batch, chunks * chunk, size)[:, :time]
