"""The questions of ``torchcram bench``: each compares one part of the library with a named peer, on the
same inputs, in the same run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from torchcram.bench.decoding import decode
from torchcram.bench.generating import generate
from torchcram.bench.measurement import Measurement
from torchcram.bench.recurrent_layer import recurrent_layer
from torchcram.bench.setting import Setting
from torchcram.bench.timing import seconds, take_turns
from torchcram.bench.training_step import train_step
from torchcram.ops.routed_attention import routed_attention
from torchcram.ops.scan import scan, scan_reference

DENSE = "scaled_dot_product_attention, dense and causal"
READ_RATES = (0.016, 0.1, 0.5)


def routed_attention_forward(setting: Setting) -> Iterator[Measurement]:
    """Attention of some queries against attention of all: 8 heads of 64."""
    for length in setting.lengths("routed-attention"):
        for read_rate in READ_RATES:
            yield _attention(setting, length, read_rate, backward=False)


def routed_attention_backward(setting: Setting) -> Iterator[Measurement]:
    """The same with gradients of queries, keys and values."""
    for length in setting.lengths("routed-attention-backward"):
        for read_rate in READ_RATES:
            yield _attention(setting, length, read_rate, backward=True)


def _attention(setting: Setting, length: int, read_rate: float, *, backward: bool) -> Measurement:
    query, key, value, above = (setting.randn(1, 8, length, 64) for _ in range(4))
    query = query / 8
    selected = (torch.rand(1, length, generator=setting.generator) < read_rate).to(setting.device)
    inputs = [tensor.requires_grad_(backward) for tensor in (query, key, value)]

    def ours() -> Tensor:
        return routed_attention(inputs[0], inputs[1], inputs[2], selected)

    def dense() -> Tensor:
        return scaled_dot_product_attention(inputs[0], inputs[1], inputs[2], is_causal=True, scale=1.0)

    both = [
        partial(_with_gradients, function, inputs, above) if backward else torch.no_grad()(function)
        for function in (ours, dense)
    ]
    # A dense pass over 32,768 tokens takes seconds: three of them tell enough.
    timing = take_turns(*both, rounds=setting.rounds if length < 20_000 else 3)
    question = "routed-attention-backward" if backward else "routed-attention"
    return Measurement(
        question=question,
        device=setting.name,
        length=length,
        read_rate=read_rate,
        peer=DENSE,
        timing=timing,
        limit=1 / read_rate,
    )


def scan_forward_backward(setting: Setting) -> Iterator[Measurement]:
    """The recurrence with its gradients, batch 8, width 256, against two loops over its steps, and as a layer
    against Mamba-2's.

    The limit of the recurrence is its least memory traffic: decays, inputs and states, then decays, states
    and three kinds of gradients pass once.
    """
    for length in setting.lengths("scan"):
        decay = torch.rand(8, length, 256, generator=setting.generator).to(setting.device).requires_grad_()
        inputs, initial, above = (
            setting.randn(8, length, 256).requires_grad_(),
            setting.randn(8, 256).requires_grad_(),
            setting.randn(8, length, 256),
        )
        given = [decay, inputs, initial]
        ours = partial(_with_gradients, partial(scan, *given), given, above)
        for peer, function in SCAN_PEERS.items():
            # The definition takes seconds: three rounds tell enough.
            rounds = setting.rounds if function is _loop else min(setting.rounds, 3)
            timing = take_turns(
                ours, partial(_with_gradients, partial(function, *given), given, above), rounds=rounds
            )
            limit = timing.peer_ms / (1e3 * _seconds_to_move(given[0], 8))
            yield Measurement(
                question="scan",
                device=setting.name,
                length=length,
                read_rate=None,
                peer=peer,
                timing=timing,
                limit=limit,
            )
        yield recurrent_layer(setting, length)


def _seconds_to_move(tensor: Tensor, times: int) -> float:
    """How long it takes to read or write that many tensors of this size: a copy does both."""
    source, target = tensor.detach(), torch.empty_like(tensor)
    copies = [seconds(partial(target.copy_, source), repeats=5) for _ in range(5)]
    return statistics.median(copies) * times / 2


def _loop(decay: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
    """The loop as one would write it: slices taken once, so that its backward pass is linear in the
    length, too.
    """
    state, states = initial, []
    for factor, more in zip(decay.unbind(1), inputs.unbind(1), strict=True):
        state = factor * state + more
        states.append(state)
    return torch.stack(states, 1)


def _with_gradients(
    function: Callable[[], Tensor], inputs: list[Tensor], above: Tensor
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(function(), inputs, above)


SCAN_PEERS = {
    "step-by-step loop (the definition)": scan_reference,
    "step-by-step loop over slices taken once": _loop,
}
QUESTIONS: dict[str, Callable[[Setting], Iterator[Measurement]]] = {
    "routed-attention": routed_attention_forward,
    "routed-attention-backward": routed_attention_backward,
    "scan": scan_forward_backward,
    "train-step": train_step,
    "decode": decode,
    "generate": generate,
}
