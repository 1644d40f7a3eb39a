"""Refit: semantic memory is corrected behind what is replaced, towards the outputs of the untouched model.

Each layer learned on the inputs of the untouched model. With memories in every layer, inputs shift, and
errors add up. One more pass runs both models over the same text, and sums, layer by layer, how the heads
still differ; a ridge step of the predicted values, of all layers together, makes good what can be predicted.
How strong the ridge and how long the step is chosen by the divergence on select text, where no step at all is
a choice, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.acquire import Advance, standard_of
from torchcram.pretrained.retrofit.closed_form import map_of, set_map
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.judge import compared
from torchcram.pretrained.retrofit.memory import Answered, Asked, LayerMemory
from torchcram.pretrained.retrofit.moments import LEAST_WEIGHT
from torchcram.pretrained.retrofit.parts import remote_share
from torchcram.pretrained.retrofit.processes import ALONE, Processes

# Strengths of the ridge, as shares of the mean weighted square of a feature, and lengths of the step.
STEPS = ((1.0, 0.5), (1.0, 1.0), (0.3, 1.0))


@dataclass(kw_only=True)
class ErrorMoments:
    """Weighted sums of standardised features x (with a one at the end) and of what the heads still lack.

    Attributes:
        xx: sums of products of x with itself.
        xr: sums of products of x and the errors, as far as a change of the predicted value reaches them.
    """

    xx: Float[Tensor, "inputs inputs"]
    xr: Float[Tensor, "inputs values"]

    def add(self, memory: LayerMemory, asked: Asked, answered: Answered, wanted: Tensor) -> None:
        """Take in a pass without reads; ``wanted`` are the heads of the untouched model."""
        evidence, _ = memory.evidence(asked)
        some = evidence.remote > 0
        chosen = evidence.chosen(some)
        x = standard_of(memory)(chosen.features())
        x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        share = remote_share(chosen.near, memory.semantic(chosen)).float()
        error = (wanted - answered.heads).transpose(1, 2)[some].float()
        self.xx.addmm_((x * (share.square().mean(1, keepdim=True) + LEAST_WEIGHT)).T, x)
        self.xr.addmm_(x.T, (error * share[..., None]).flatten(1))

    def step(self, strength: float) -> Float[Tensor, "inputs values"]:
        """Return the change of the map to the values."""
        xx = self.xx.double()
        scale = xx.diagonal()[:-1].mean().clamp(min=1e-12)
        ridge = torch.full((len(xx),), strength, dtype=xx.dtype, device=xx.device) * scale
        ridge[-1] = 1e-6 * scale
        return torch.linalg.solve(xx + ridge.diag(), self.xr.double()).float()


@torch.no_grad()
def refit(
    model: Any,
    layerwise: Layerwise,
    *,
    fit: Sequence[Tensor],
    select: Sequence[Tensor],
    steps: Sequence[tuple[float, float]] = STEPS,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> dict[tuple[float, float], float]:
    """Correct the semantic memories of a model.

    Args:
        model: retrofitted, at rest, with semantic memory.
        layerwise: the same.
        fit: tokens of the windows that the step is computed on.
        select: tokens of the windows that choose.
        steps: strength and length of each step to try.
        processes: that share the windows.
        advance: is told the tokens of each finished window.

    Returns:
        The divergence on select text behind each step, in nats a token; ``(0, 0)`` is no step, and the least
        one was taken.
    """
    layers = memories(model)
    sums = _summed(model, layers, processes.mine(fit), advance)
    for layer in layers:
        processes.add(sums[layer].xx, sums[layer].xr)
    before = {layer: map_of(memory.semantic).clone() for layer, memory in layers.items()}
    changes = {strength: {layer: sums[layer].step(strength) for layer in layers} for strength, _ in steps}

    def take(strength: float, length: float) -> None:
        for layer, memory in layers.items():
            weight = before[layer].clone()
            if length:
                weight[:, : changes[strength][layer].shape[1]] += length * changes[strength][layer]
            set_map(memory.semantic, weight)

    judged = [(0.0, 0.0), *steps]
    sums_of = _divergences(model, layerwise, processes.mine(select), judged, take, advance)
    processes.add(sums_of)
    tokens = sum(len(ids) for ids in select)
    divergences = dict(zip(judged, (sums_of / tokens).tolist(), strict=True))
    take(*min(divergences, key=divergences.__getitem__))
    return divergences


def _summed(
    model: Any, layers: Mapping[int, LayerMemory], windows: Sequence[Tensor], advance: Advance
) -> dict[int, ErrorMoments]:
    sums: dict[int, ErrorMoments] = {}
    wanted: dict[int, Tensor] = {}

    def keep(layer: int, asked: Asked, answered: Answered) -> None:
        wanted[layer] = answered.heads

    def compare(layer: int, asked: Asked, answered: Answered) -> None:
        semantic = layers[layer].semantic
        if layer not in sums:
            inputs, values = semantic.features + 1, semantic.heads * semantic.head_size
            sums[layer] = ErrorMoments(
                xx=torch.zeros(inputs, inputs, device=asked.hidden.device),
                xr=torch.zeros(inputs, values, device=asked.hidden.device),
            )
        sums[layer].add(layers[layer], asked, answered, wanted.pop(layer))

    for ids in windows:
        with reading(model, "all"), _comparing(layers, keep):
            model.base_model(input_ids=ids[None], use_cache=False)
        with reading(model, "none"), _comparing(layers, compare):
            model.base_model(input_ids=ids[None], use_cache=False)
        advance(len(ids))
    return sums


@contextmanager
def _comparing(
    layers: Mapping[int, LayerMemory], hear: Callable[[int, Asked, Answered], None]
) -> Iterator[None]:
    def hook(layer: int) -> Callable[..., None]:
        return lambda module, args, answered: hear(layer, args[0], answered)

    handles = [memory.register_forward_hook(hook(layer)) for layer, memory in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _divergences(
    model: Any,
    layerwise: Layerwise,
    windows: Sequence[Tensor],
    steps: Sequence[tuple[float, float]],
    take: Callable[[float, float], None],
    advance: Advance,
) -> Float64[Tensor, " steps"]:
    """Return the divergence from the untouched model, without reads, behind each step, summed over tokens."""
    sums = torch.zeros(len(steps), dtype=torch.float64)
    for ids in windows:
        calls = layerwise.embed(ids)
        with reading(model, "all"):
            untouched = layerwise.run(calls.embedded, calls)
        for number, step in enumerate(steps):
            take(*step)
            with reading(model, "none"):
                now = layerwise.run(calls.embedded, calls)
            sums[number] += float(compared(layerwise, calls, untouched, now)[0])
        advance(len(ids))
    return sums
