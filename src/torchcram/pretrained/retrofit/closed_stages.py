"""The first stages: semantic memory in closed form, corrected behind what is replaced, and routers fitted to
its harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.acquire import FIRST_WINDOWS, acquire
from torchcram.pretrained.retrofit.install import memories, retrofit_of
from torchcram.pretrained.retrofit.keeper_fit import keeps
from torchcram.pretrained.retrofit.refit import refit
from torchcram.pretrained.retrofit.router_fit import ROUNDS, fit_routers, price_for
from torchcram.pretrained.retrofit.stages import Stages

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Closed:
    """Windows: fitted on, that choose, that correct, and that routers learn from."""

    fit: Sequence[Tensor]
    select: Sequence[Tensor]
    behind: Sequence[Tensor]
    routed: Sequence[Tensor]


def closed_form(
    layerwise: Layerwise, stages: Stages, text: Closed, *, reads: float, progress: AnalysisProgress
) -> dict[int, Float[Tensor, "features directions"]]:
    """Acquire, refit, fit the routers, and set the price of a read.

    Args:
        layerwise: the model, retrofitted, at rest, with memories that know nothing.
        stages: keep what is done.
        text: windows.
        reads: share of token x layer that may read.
        progress: is told.

    Returns:
        Of every layer, the directions of its features in which routers look.
    """
    model = layerwise.model
    acquired = stages.stage(
        "acquire",
        progress,
        (1 + keeps(memories(model))) * _tokens(text.fit)
        + _tokens(text.fit[:FIRST_WINDOWS])
        + _tokens(text.select),
        lambda advance: _acquire(layerwise, stages, text, advance, progress),
    )
    stages.stage(
        "refit",
        progress,
        _tokens(text.behind) + _tokens(text.select),
        lambda advance: _refit(layerwise, stages, text, advance, progress),
    )
    bases = {layer: acquired[f"basis.{layer}"] for layer in memories(model)}
    price = stages.stage(
        "route",
        progress,
        _tokens(text.routed) + ROUNDS * _tokens(text.select),
        lambda advance: {
            "price": torch.tensor(
                fit_and_price(
                    layerwise,
                    stages,
                    routed=text.routed,
                    select=text.select,
                    bases=bases,
                    reads=reads,
                    draw=2,
                    advance=advance,
                )
            )
        },
    )["price"]
    retrofit_of(model).set_price(float(price))
    return bases


def _acquire(
    layerwise: Layerwise, stages: Stages, text: Closed, advance: Advance, progress: AnalysisProgress
) -> dict[str, Tensor]:
    choices = acquire(
        layerwise.model,
        layerwise,
        fit=text.fit,
        select=text.select,
        generator=stages.generator(1),
        processes=stages.processes,
        advance=advance,
    )
    near = sum(choice.near_harm for choice in choices.values())
    left = sum(min(choice.harm.values()) for choice in choices.values())
    progress.say(f"harm, summed over layers: {near:.4f} nats near alone, {left:.4f} with semantic memory")
    return {f"basis.{layer}": choice.basis.contiguous() for layer, choice in choices.items()}


def _refit(
    layerwise: Layerwise, stages: Stages, text: Closed, advance: Advance, progress: AnalysisProgress
) -> dict[str, Tensor]:
    divergences = refit(
        layerwise.model,
        layerwise,
        fit=text.behind,
        select=text.select,
        processes=stages.processes,
        advance=advance,
    )
    before, after = divergences[(0.0, 0.0)], min(divergences.values())
    progress.say(f"divergence without reads: {before:.4f} nats, {after:.4f} behind the refit")
    return {}


def fit_and_price(
    layerwise: Layerwise,
    stages: Stages,
    *,
    routed: Sequence[Tensor],
    select: Sequence[Tensor],
    bases: Mapping[int, Float[Tensor, "features directions"]],
    reads: float,
    draw: int,
    advance: Advance,
) -> float:
    """Fit the routers, and return the price at which the wanted share reads, in nats.

    Args:
        layerwise: the model, retrofitted, with semantic memory.
        stages: whose processes share the windows.
        routed: tokens of the windows that routers learn from.
        select: tokens of the windows that tell the price.
        bases: of every layer, directions of its features.
        reads: share of token x layer that may read.
        draw: number of the generator.
        advance: is told the tokens of each finished window.
    """
    model, together = layerwise.model, stages.processes
    generator = stages.generator(draw)
    fit_routers(model, layerwise, routed, bases, generator=generator, processes=together, advance=advance)
    return price_for(model, select, reads=reads, processes=together, advance=advance)


def _tokens(windows: Sequence[Tensor]) -> int:
    return sum(len(ids) for ids in windows)
