"""Acquire: the model reads everything, as it always did, and semantic memory learns in its shadow, in closed
form.

Four passes over text: which entries are notable; what features look like; sums for the ridge, forward alone;
then, on select text, which strength does the least harm in each layer, with gradients of the model's own
predictions. No activation outlives its window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.closed_form import Solutions, solutions
from torchcram.pretrained.retrofit.evidence import Standard
from torchcram.pretrained.retrofit.gradients import generators_of, visit_gradients
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.keeper_fit import fit_keepers
from torchcram.pretrained.retrofit.lessons import Lesson, lesson_of, listening
from torchcram.pretrained.retrofit.memory import Asked, LayerMemory
from torchcram.pretrained.retrofit.moments import (
    FeatureMoments,
    RemoteMoments,
    no_feature_moments,
    no_remote_moments,
)
from torchcram.pretrained.retrofit.processes import ALONE, Processes
from torchcram.pretrained.retrofit.semantic import LinearRemote, LowRankRemote

# Windows from which means and deviations of the features are taken.
FIRST_WINDOWS = 4
# Directions of the features in which the router looks for harm.
DIRECTIONS = 128

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """What was chosen for one layer on select text.

    Attributes:
        strength: of the ridge.
        near_harm: mean harm of near attention alone, in nats a token.
        harm: mean harm of each strength's memory.
        basis: directions in which the layer's features vary most.
    """

    strength: float
    near_harm: float
    harm: dict[float, float]
    basis: Float[Tensor, "features directions"]


@torch.no_grad()
def acquire(
    model: Any,
    layerwise: Layerwise,
    *,
    fit: Sequence[Tensor],
    select: Sequence[Tensor],
    generator: torch.Generator,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> dict[int, LayerChoice]:
    """Give every layer the semantic memory that does the least harm on select text.

    Args:
        model: retrofitted, at rest.
        layerwise: the same.
        fit: tokens of the windows to fit on.
        select: tokens of the windows that choose.
        generator: draws labels.
        processes: that share the windows.
        advance: is told the tokens of each finished window.

    Raises:
        ValueError: if no window is longer than what is near, or values overflow.
    """
    layers = memories(model)
    with reading(model, "all"):
        fit_keepers(model, layers, fit, processes=processes, advance=advance)
        first = fit[: max(FIRST_WINDOWS, processes.count)]
        standardise(model, layers, first, processes=processes, advance=advance)
        sums = summed(model, layers, fit, processes=processes, advance=advance)
        solved = {}
        for layer in sorted(layers):
            solved[layer] = solutions(sums.pop(layer), directions=DIRECTIONS)
        return choose(
            layerwise,
            layers,
            solved,
            select,
            generator=generator,
            processes=processes,
            advance=advance,
        )


def standard_of(memory: LayerMemory) -> Standard:
    """Return the standard of a memory that has a closed form.

    Raises:
        ValueError: for one that has none.
    """
    if not isinstance(memory.semantic, LinearRemote | LowRankRemote):
        raise ValueError("semantic memory of kind slots has no closed form: choose kind linear or low_rank")
    return memory.semantic.standard


def standardise(
    model: Any,
    layers: dict[int, LayerMemory],
    windows: Sequence[Tensor],
    *,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> None:
    """Take means and deviations of the features from some windows, on which the model reads everything.

    Args:
        model: retrofitted, at rest.
        layers: its memories.
        windows: tokens.
        processes: that share the windows.
        advance: is told the tokens of each finished window.

    Raises:
        ValueError: if no window is longer than what is near.
    """
    seen: dict[int, FeatureMoments] = {}

    def hear(layer: int, asked: Asked) -> None:
        lesson = lesson_of(layers[layer], asked)
        features = layers[layer].semantic.features
        seen.setdefault(layer, no_feature_moments(features, device=asked.hidden.device)).add(lesson)

    _run(model, layers, processes.mine(windows), hear, advance)
    for layer, memory in layers.items():
        if layer in seen:
            seen[layer].share(processes)
        if layer not in seen or seen[layer].count == 0:
            raise ValueError(
                "the text is too short: no window has a token with something beyond the near ones "
                f"({memory.reach.sinks} + {memory.reach.window} tokens, and {memory.reach.kept} kept)"
            )
        seen[layer].settle(standard_of(memory))
        if memory.router is not None:
            memory.router.standard.load_state_dict(standard_of(memory).state_dict())


def summed(
    model: Any,
    layers: dict[int, LayerMemory],
    windows: Sequence[Tensor],
    *,
    into: dict[int, RemoteMoments] | None = None,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> dict[int, RemoteMoments]:
    """Return the sums over some windows, on which the model reads everything.

    Args:
        model: retrofitted, at rest.
        layers: its memories, whose features are standardised.
        windows: tokens.
        into: sums over earlier windows, to go on with.
        processes: that share the windows.
        advance: is told the tokens of each finished window.

    Raises:
        ValueError: if values overflow.
    """
    # One process has the earlier sums, so that they count once.
    sums: dict[int, RemoteMoments] = into if into is not None and processes.first else {}

    def hear(layer: int, asked: Asked) -> None:
        semantic = layers[layer].semantic
        if layer not in sums:
            sums[layer] = no_remote_moments(
                semantic.features,
                heads=semantic.heads,
                head_size=semantic.head_size,
                device=asked.hidden.device,
            )
        sums[layer].add(lesson_of(layers[layer], asked), standard_of(layers[layer]))

    _run(model, layers, processes.mine(windows), hear, advance)
    for layer in sorted(sums):
        sums[layer].share(processes)
    if wrong := sorted(layer for layer, moments in sums.items() if not moments.finite()):
        raise ValueError(f"values overflowed in layers {wrong}: use bfloat16 or float32")
    return sums


def _run(
    model: Any,
    layers: dict[int, LayerMemory],
    windows: Sequence[Tensor],
    hear: Callable[[int, Asked], None],
    advance: Advance,
) -> None:
    """Run windows through the model without its logits."""
    with listening(layers, hear):
        for ids in windows:
            model.base_model(input_ids=ids[None], use_cache=False)
            advance(len(ids))


def choose(
    layerwise: Layerwise,
    layers: dict[int, LayerMemory],
    solved: dict[int, Solutions],
    select: Sequence[Tensor],
    *,
    generator: torch.Generator,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> dict[int, LayerChoice]:
    """Measure the harm of all solutions on select text, and keep the least.

    Args:
        layerwise: the model.
        layers: its memories.
        solved: solutions of each layer; those of a finished layer are taken out, and free their memory.
        select: tokens of the windows that choose.
        generator: draws labels.
        processes: that share the windows.
        advance: is told the tokens of each finished window.
    """
    harms = {layer: torch.zeros(1 + len(solved[layer].strengths), dtype=torch.float64) for layer in layers}
    tokens = sum(len(ids) for ids in select)

    def visit(layer: int, asked: Asked, gradient: Tensor) -> None:
        lesson = lesson_of(layers[layer], asked, gradient)
        harms[layer][0] += float(lesson.harm(None).sum())
        for number in range(len(solved[layer].strengths)):
            solved[layer].give(layers[layer].semantic, number)
            harms[layer][1 + number] += float(lesson.harm(layers[layer].semantic(lesson.evidence)).sum())

    for ids, draws in processes.mine(generators_of(select, generator)):
        visit_gradients(layerwise, layers, ids, visit, generator=draws)
        advance(len(ids))
    for layer in sorted(harms):
        processes.add(harms[layer])
    choices = {}
    for layer in sorted(layers):
        near, *others = (harms[layer] / tokens).tolist()
        best = min(range(len(others)), key=others.__getitem__)
        ridge = solved.pop(layer)
        ridge.give(layers[layer].semantic, best)
        choices[layer] = LayerChoice(
            strength=ridge.strengths[best],
            near_harm=near,
            harm=dict(zip(ridge.strengths, others, strict=True)),
            basis=ridge.basis,
        )
    return choices


def harm_lessons(
    layerwise: Layerwise,
    layers: dict[int, LayerMemory],
    windows: Sequence[Tensor],
    tell: Callable[[int, Lesson], None],
    *,
    generator: torch.Generator,
    processes: Processes = ALONE,
    advance: Advance = lambda tokens: None,
) -> None:
    """Tell the lessons of this process's windows, with gradients, layer by layer."""
    for ids, draws in processes.mine(generators_of(windows, generator)):
        visit_gradients(
            layerwise,
            layers,
            ids,
            lambda layer, asked, gradient: tell(layer, lesson_of(layers[layer], asked, gradient)),
            generator=draws,
        )
        advance(len(ids))
