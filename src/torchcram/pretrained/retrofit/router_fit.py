"""Fit the routers on measured harm, and find the price at which a model reads a wanted share.

The expected harm is learned by the deviance of a gamma distribution, ``harm / expected + log expected``: its
minimum is the mean, however heavy the tail. Tokens are kept in the few directions in which features vary
most, not the features themselves; what is learned on directions is folded back into the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, softplus

from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.acquire import Advance, harm_lessons
from torchcram.pretrained.retrofit.evidence import Evidence
from torchcram.pretrained.retrofit.install import memories, reading, retrofit_of
from torchcram.pretrained.retrofit.lessons import Lesson, listening
from torchcram.pretrained.retrofit.memory import Asked, LayerMemory
from torchcram.pretrained.retrofit.processes import ALONE, Processes
from torchcram.pretrained.retrofit.router import HarmRouter

# Full-batch steps of Adam, their size, and how often the held windows are asked.
STEPS, RATE, DECAY, LOOK = 400, 1e-2, 1e-2, 10
# Of every four windows one tells when to stop.
HELD = 4
TINY = 1e-12
# Passes over select text that home in on a price.
ROUNDS = 2


@dataclass(kw_only=True)
class _Seen:
    """Of one layer: tokens in a few directions, and their two harms, window by window."""

    features: list[Tensor] = field(default_factory=list)
    need: list[Tensor] = field(default_factory=list)
    left: list[Tensor] = field(default_factory=list)

    def shared(self, processes: Processes) -> _Seen:
        """Return what all processes saw."""
        return _Seen(
            features=processes.joined(self.features),
            need=processes.joined(self.need),
            left=processes.joined(self.left),
        )


def fit_routers(
    model: Any,
    layerwise: Layerwise,
    windows: Sequence[Tensor],
    bases: Mapping[int, Float[Tensor, "features directions"]],
    *,
    generator: torch.Generator,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> None:
    """Fit the routers of all layers that read.

    Args:
        model: retrofitted, at rest, with semantic memory.
        layerwise: the same.
        windows: tokens; the last of every four tells when to stop.
        bases: of every layer, directions of its features.
        generator: draws labels and first weights.
        processes: that share the windows.
        advance: is told the tokens of each finished window.
    """
    layers = {layer: memory for layer, memory in memories(model).items() if memory.router is not None}
    seen = {layer: _Seen() for layer in layers}

    def tell(layer: int, lesson: Lesson) -> None:
        router = layers[layer].router
        assert router is not None, "only layers with routers are told"
        seen[layer].features.append(_projected(router, lesson.evidence, bases[layer]).half())
        seen[layer].need.append(lesson.harm(None))
        seen[layer].left.append(lesson.harm(layers[layer].semantic(lesson.evidence)))

    with torch.no_grad(), reading(model, "all"):
        harm_lessons(
            layerwise, layers, windows, tell, generator=generator, processes=processes, advance=advance
        )
    for layer, memory in layers.items():
        assert memory.router is not None, "only layers with routers are fitted"
        _fit(memory.router, seen.pop(layer).shared(processes), bases[layer], generator)


def _plain(router: HarmRouter) -> int:
    """Features that stand beside the directions: log-masses, scores of the gist, how much is remote."""
    return 2 * router.heads + 1


def _projected(router: HarmRouter, evidence: Evidence, basis: Tensor) -> Tensor:
    features = router.standard(evidence.features())
    return torch.cat((features @ basis, features[:, -_plain(router) :]), 1)


def _fit(router: HarmRouter, seen: _Seen, basis: Tensor, generator: torch.Generator) -> None:
    held = [place % HELD == HELD - 1 for place in range(len(seen.features))]

    def joined(parts: list[Tensor], wanted: bool) -> Tensor:
        chosen = [part.float() for part, out in zip(parts, held, strict=True) if out == wanted]
        return torch.cat(chosen or [part.float() for part in parts])

    data = [(joined(seen.features, w), joined(seen.need, w), joined(seen.left, w)) for w in (False, True)]
    scale = data[0][0].std(0).clamp_min(1e-3)
    network = _Network(len(scale), router.inner.out_features, data[0][1], data[0][2], generator).to(
        basis.device
    )
    best, least = _descend(network, [(x / scale, need, left) for x, need, left in data])
    network.load_state_dict(best)
    del least
    with torch.no_grad():
        inner = network.inner.weight / scale
        weight = inner[:, : basis.shape[1]] @ basis.T
        weight[:, -_plain(router) :] += inner[:, basis.shape[1] :]
        router.inner.weight.copy_(weight)
        router.inner.bias.copy_(network.inner.bias)
        router.outer.load_state_dict(network.outer.state_dict())


class _Network(nn.Module):
    """The router on directions; born with the mean harms."""

    def __init__(self, inputs: int, hidden: int, need: Tensor, left: Tensor, generator: torch.Generator):
        super().__init__()
        self.inner, self.outer = nn.Linear(inputs, hidden), nn.Linear(hidden, 2)
        means = need.mean().clamp_min(TINY), torch.minimum(left.mean(), 0.99 * need.mean()).clamp_min(TINY)
        with torch.no_grad():
            self.inner.weight.copy_(torch.randn(hidden, inputs, generator=generator) * inputs**-0.5)
            self.inner.bias.zero_()
            self.outer.weight.zero_()
            # left = need / (1 + exp(logit))
            self.outer.bias.copy_(
                torch.stack((means[0].log(), (means[0] / means[1] - 1).clamp_min(1e-3).log()))
            )

    def loss(self, x: Tensor, need: Tensor, left: Tensor) -> Tensor:
        log_need, logit = self.outer(gelu(self.inner(x))).unbind(-1)
        log_left = log_need - softplus(logit)
        return _deviance(log_need, need) + _deviance(log_left, left)


def _deviance(log_expected: Tensor, harm: Tensor) -> Tensor:
    return ((harm + TINY) * (-log_expected).exp() + log_expected).mean()


@torch.enable_grad()
def _descend(network: _Network, data: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[dict[str, Tensor], float]:
    """Return the state with the least deviance on held windows."""
    fit, held = data
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    best, least = {name: value.clone() for name, value in network.state_dict().items()}, float("inf")
    for step in range(STEPS):
        optimizer.zero_grad()
        network.loss(*fit).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % LOOK == LOOK - 1:
            with torch.no_grad():
                now = float(network.loss(*held))
            if now < least:
                best, least = {name: value.clone() for name, value in network.state_dict().items()}, now
    return best, least


@torch.no_grad()
def price_for(
    model: Any,
    windows: Sequence[Tensor],
    *,
    reads: float,
    start: float | None = None,
    rounds: int = ROUNDS,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> float:
    """Return the price at which so large a share of token x layer reads, on some text.

    What is read changes what later layers ask, so the price is found on what the model asks at the last one.

    Args:
        model: retrofitted, at rest.
        windows: tokens.
        reads: share of token x layer, over all layers with memories, in [0, 1].
        start: price from which it is looked for; the model's own if None.
        rounds: passes over the text.
        processes: that share the windows.
        advance: is told the tokens of each finished window.
    """
    places = len(memories(model)) * sum(len(ids) for ids in windows)
    price = retrofit_of(model).control.price if start is None else start
    for _ in range(rounds):
        harms = predicted_harms(model, windows, price=price, processes=processes, advance=advance)
        wanted = min(int(reads * places), len(harms) - 1)
        price = float(harms[wanted]) if int(reads * places) < len(harms) else 0.0
    return price


@torch.no_grad()
def predicted_harms(
    model: Any,
    windows: Sequence[Tensor],
    *,
    price: float | None = None,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> Float[Tensor, " places"]:
    """Return what the routers expect of leaving out each possible read of some text, in nats, falling.

    Args:
        model: retrofitted, at rest.
        windows: tokens.
        price: of a read; the model's own if None.
        processes: that share the windows.
        advance: is told the tokens of each finished window.
    """
    layers = {layer: memory for layer, memory in memories(model).items() if memory.router is not None}
    left: list[Tensor] = []
    with reading(model, price=price), listening(layers, _noting(layers, left)):
        for ids in processes.mine(windows):
            model.base_model(input_ids=ids[None], use_cache=False)
            advance(len(ids))
    harms = processes.joined([torch.cat(left)] if left else [])
    return torch.cat(harms).sort(descending=True).values if harms else torch.zeros(0)


def _noting(layers: Mapping[int, LayerMemory], left: list[Tensor]) -> Any:
    def hear(layer: int, asked: Asked) -> None:
        memory = layers[layer]
        assert memory.router is not None, "only layers with routers are asked"
        evidence, _ = memory.evidence(asked)
        log_need, logit = memory.router(evidence.chosen(evidence.remote > 0))
        left.append((log_need - softplus(logit)).exp())

    return hear
