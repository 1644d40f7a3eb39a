"""Refit the probes of a set of layers together, first layer first: each one on the inputs that the layers replaced before it leave.

The targets are the outputs of the untouched model on the same tokens, so that a later probe makes good what earlier ones did wrong. What is fitted is the
deviation from the probe of all fit tokens, shrunk towards none; the strength is chosen on select text. All sets go through the model in step, layer by
layer; sets that agree so far share their hidden states, which are kept for the refit tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from torchcram.analysis.capture import capture
from torchcram.analysis.layerwise import Calls, Layerwise
from torchcram.analysis.moments import covariances, no_moments
from torchcram.analysis.ridge import LinearProbe, chosen_on
from torchcram.analysis.sites import AttentionSite
from torchcram.analysis.state_probe import StateProbe, Summary

# What was replaced so far, by number of the site: the key of shared hidden states.
Past = frozenset[int]
Chosen = dict[int, StateProbe]


class _SeenError(Exception):
    """The input of a block has been seen: the rest of its layer need not run."""


@dataclass(kw_only=True)
class _Streams:
    """Hidden states of every window, for the untouched model (nothing replaced) and for each set so far."""

    calls: list[Calls]
    hidden: dict[Past, list[Tensor]]


@torch.no_grad()
def refit(
    layerwise: Layerwise,
    sites: Sequence[AttentionSite],
    sets: Mapping[int, Sequence[int]],
    *,
    first: Sequence[LinearProbe],
    summaries: Sequence[Summary],
    fit: Sequence[Tensor],
    select: Sequence[Tensor],
    advance: Callable[[int], None] = lambda layers: None,
) -> tuple[dict[int, Chosen], dict[int, float]]:
    """Fit the probes of each set.

    Args:
        layerwise: the model.
        sites: all of its attention blocks.
        sets: numbers of the sites to replace, for each size of a set.
        first: probes of all sites, from the input to the block's output, from all fit tokens.
        summaries: features of all sites.
        fit: tokens of the windows to fit on.
        select: tokens of the windows that choose strengths.
        advance: is told of each finished layer.

    Returns:
        The probes of each set, and the change of the loss on the select windows.
    """
    streams = _streams(layerwise, [*fit, *select])
    probes: dict[Past, StateProbe] = {}
    for layer in range(len(layerwise.layers)):
        number = layerwise.layer_of.index(layer) if layer in layerwise.layer_of else None
        before = {size: frozenset(site for site in chosen if layerwise.layer_of[site] < layer) for size, chosen in sets.items()}
        targets = _advance_untouched(layerwise, sites, streams, layer, number if number in {site for chosen in sets.values() for site in chosen} else None)
        replaced = {before[size] for size, chosen in sets.items() if number in chosen}
        kept = {before[size] for size, chosen in sets.items() if number not in chosen}
        moved: dict[Past, list[Tensor]] = {frozenset(): streams.hidden[frozenset()]}
        for past in replaced if number is not None else ():
            now = past | {number}
            entered = targets.old if not past else streams.hidden[past]
            probes[now] = _fit_one(layerwise, sites[number], layer, streams.calls, entered, targets.outputs, first[number], summaries[number], len(fit))
            moved[now] = _moved(layerwise, sites[number], layer, streams.calls, entered, probes[now])
        for past in kept - {frozenset()}:
            moved[past] = [layerwise.run(h, calls, start=layer, end=layer + 1) for h, calls in zip(streams.hidden[past], streams.calls, strict=True)]
        streams.hidden = moved
        advance(1)
    return {size: _probes_of(chosen, probes, layerwise) for size, chosen in sets.items()}, _select_changes(layerwise, streams, sets, len(fit))


def _streams(layerwise: Layerwise, windows: Sequence[Tensor]) -> _Streams:
    calls = [layerwise.embed(ids) for ids in windows]
    return _Streams(calls=calls, hidden={frozenset(): [call.embedded for call in calls]})


@dataclass(kw_only=True)
class _Targets:
    """Hidden states of the untouched model before a layer, and the outputs of its attention there."""

    old: list[Tensor]
    outputs: list[Tensor]


def _advance_untouched(layerwise: Layerwise, sites: Sequence[AttentionSite], streams: _Streams, layer: int, number: int | None) -> _Targets:
    """Move the untouched model on by a layer; keep the outputs of its attention if they are wanted."""
    old, outputs = streams.hidden[frozenset()], []

    def keep(_: int, x: Tensor, output: Tensor) -> Tensor:
        outputs.append(output)
        return output

    with capture([] if number is None else [sites[number]], replace=keep):
        new = [layerwise.run(h, calls, start=layer, end=layer + 1) for h, calls in zip(old, streams.calls, strict=True)]
    streams.hidden[frozenset()] = new
    return _Targets(old=old, outputs=outputs)


def _fit_one(
    layerwise: Layerwise,
    site: AttentionSite,
    layer: int,
    calls: Sequence[Calls],
    entered: Sequence[Tensor],
    targets: Sequence[Tensor],
    first: LinearProbe,
    summary: Summary,
    fits: int,
) -> StateProbe:
    """Fit the deviation from the first probe on the windows up to ``fits``; those behind choose the strength."""
    parts = [no_moments(summary.features, site.width, device=targets[0].device) for _ in range(2)]
    for index, (hidden, call, target) in enumerate(zip(entered, calls, targets, strict=True)):
        x = _input(layerwise, site, layer, hidden, call)
        parts[index >= fits].add(summary(x), target.float() - first(x))
    fit, select = (covariances(part) for part in parts)
    change = chosen_on(select, fit)
    weight = change.weight.clone()
    weight[: len(first.weight)] += first.weight.double()
    linear = LinearProbe(weight=weight, bias=change.bias + first.bias.double(), strength=change.strength)
    return StateProbe(summary=summary, linear=linear.float())


def _input(layerwise: Layerwise, site: AttentionSite, layer: int, hidden: Tensor, calls: Calls) -> Tensor:
    seen: list[Tensor] = []

    def see(_: int, x: Tensor, heads: Tensor) -> None:
        seen.append(x)
        raise _SeenError

    with capture([site], see=see), suppress(_SeenError):
        layerwise.run(hidden, calls, start=layer, end=layer + 1)
    return seen[0]


def _moved(layerwise: Layerwise, site: AttentionSite, layer: int, calls: Sequence[Calls], entered: Sequence[Tensor], probe: StateProbe) -> list[Tensor]:
    with capture([site], replace=lambda _, x, output: probe(x).to(output.dtype)):
        return [layerwise.run(h, call, start=layer, end=layer + 1) for h, call in zip(entered, calls, strict=True)]


def _probes_of(chosen: Sequence[int], probes: Mapping[Past, StateProbe], layerwise: Layerwise) -> Chosen:
    ordered = sorted(chosen, key=lambda site: layerwise.layer_of[site])
    return {site: probes[frozenset(ordered[: place + 1])] for place, site in enumerate(ordered)}


def _select_changes(layerwise: Layerwise, streams: _Streams, sets: Mapping[int, Sequence[int]], fits: int) -> dict[int, float]:
    def loss(past: Past) -> Tensor:
        losses = [layerwise.losses(h, calls) for h, calls in zip(streams.hidden[past][fits:], streams.calls[fits:], strict=True)]
        return torch.cat(losses).mean()

    base = loss(frozenset())
    return {size: float(loss(frozenset(chosen)) - base) for size, chosen in sets.items()}
