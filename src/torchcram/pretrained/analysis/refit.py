"""Refit the probes of a set of layers together, first layer first: each one on the inputs that the layers
replaced before it leave.

The targets are the outputs of the untouched model on the same tokens, so that a later probe makes good what
earlier ones did wrong. What is fitted is the deviation from the probe of all fit tokens, shrunk towards none;
the strength is chosen on select text. All sets go through the model in step, layer by layer; sets that agree
so far share their hidden states, which are kept for the refit tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchcram.pretrained.analysis.layerwise import Calls, Layerwise
from torchcram.pretrained.analysis.moments import covariances, no_moments
from torchcram.pretrained.analysis.ridge import LinearProbe, chosen_on
from torchcram.pretrained.analysis.site_probes import SiteProbes
from torchcram.pretrained.analysis.state_probe import StateProbe, Summary
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite

# What was replaced so far, by number of the site: the key of shared hidden states.
Past = frozenset[int]
Chosen = dict[int, StateProbe]
UNTOUCHED: Past = frozenset()


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
    number_at = {layer: number for number, layer in enumerate(layerwise.layer_of)}
    for layer in range(len(layerwise.layers)):
        number = number_at.get(layer)
        past = {
            size: frozenset(site for site in chosen if layerwise.layer_of[site] < layer)
            for size, chosen in sets.items()
        }
        replaced = {past[size] for size, chosen in sets.items() if number in chosen}
        kept = {past[size] for size, chosen in sets.items() if number not in chosen} | {UNTOUCHED}
        entered = streams.hidden
        streams.hidden, outputs = _advanced(
            layerwise, sites[number] if number is not None and replaced else None, streams, layer, kept
        )
        if number is not None:
            for one in replaced:
                block = _Block(
                    layerwise=layerwise,
                    site=sites[number],
                    layer=layer,
                    calls=streams.calls,
                    entered=entered[one],
                )
                probes[one | {number}] = probe = _fit_one(
                    block, outputs, first[number], summaries[number], len(fit)
                )
                streams.hidden[one | {number}] = _moved(block, probe)
        advance(1)
    return {size: _probes_of(chosen, probes, layerwise) for size, chosen in sets.items()}, _select_changes(
        layerwise, streams, sets, len(fit)
    )


@torch.no_grad()
def fit_each(
    layerwise: Layerwise,
    sites: Sequence[AttentionSite],
    *,
    first: Sequence[LinearProbe],
    summaries: Sequence[Summary],
    fit: Sequence[Tensor],
    select: Sequence[Tensor],
    advance: Callable[[int], None] = lambda layers: None,
) -> list[StateProbe]:
    """Fit the probe of every site alone, in the untouched model. The arguments are those of :func:`refit`."""
    streams, probes = _streams(layerwise, [*fit, *select]), {}
    for layer in range(len(layerwise.layers)):
        here = [number for number, at in enumerate(layerwise.layer_of) if at == layer]
        entered = streams.hidden[UNTOUCHED]
        streams.hidden, outputs = _advanced(
            layerwise, sites[here[0]] if here else None, streams, layer, {UNTOUCHED}
        )
        for number in here:
            block = _Block(
                layerwise=layerwise, site=sites[number], layer=layer, calls=streams.calls, entered=entered
            )
            probes[number] = _fit_one(block, outputs, first[number], summaries[number], len(fit))
        advance(1)
    return [probes[number] for number in range(len(sites))]


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """What is kept of refitting.

    Attributes:
        probes: on the features of each site, for each set, by the number of the site.
        changes: of the loss on select text, for each set.
    """

    probes: dict[int, dict[int, LinearProbe]]
    changes: dict[int, float]


def fit_all(study: Study, layerwise: Layerwise, probes: Sequence[SiteProbes]) -> list[LinearProbe]:
    """Fit the probe of every site of a study alone; returned are those on the features."""
    advance = study.progress.stage("fit each layer's probe", total=len(layerwise.layers), unit="layers")
    each = fit_each(layerwise, study.sites, **_data(study, probes), advance=advance)
    return [probe.linear for probe in each]


def refit_sets(
    study: Study,
    layerwise: Layerwise,
    probes: Sequence[SiteProbes],
    sets: Mapping[int, Sequence[int]],
) -> Refitted:
    """Refit the probes of some sets of sites of a study."""
    advance = study.progress.stage("refit behind replaced layers", total=len(layerwise.layers), unit="layers")
    chosen, changes = refit(layerwise, study.sites, sets, **_data(study, probes), advance=advance)
    linear = {
        size: {number: probe.linear for number, probe in of_set.items()} for size, of_set in chosen.items()
    }
    return Refitted(probes=linear, changes=changes)


def _data(study: Study, probes: Sequence[SiteProbes]) -> dict[str, Any]:
    """What probes with a memory are fitted from."""
    tokens = study.settings.refit_tokens
    return {
        "first": [probe.block for probe in probes],
        "summaries": [probe.summary for probe in probes],
        "fit": study.ids("fit", tokens),
        "select": study.ids("select", max(tokens // 8, 1)),
    }


def _streams(layerwise: Layerwise, windows: Sequence[Tensor]) -> _Streams:
    calls = [layerwise.embed(ids) for ids in windows]
    return _Streams(calls=calls, hidden={UNTOUCHED: [call.embedded for call in calls]})


def _advanced(
    layerwise: Layerwise, site: AttentionSite | None, streams: _Streams, layer: int, kept: set[Past]
) -> tuple[dict[Past, list[Tensor]], list[Tensor]]:
    """Run a layer as it is in the streams that keep it; note the outputs of its attention in the untouched
    model if there is a site.
    """
    outputs: list[Tensor] = []

    def keep(_: int, x: Tensor, output: Tensor) -> Tensor:
        outputs.append(output)
        return output

    moved: dict[Past, list[Tensor]] = {}
    for past in kept:
        with capture([] if site is None or past != UNTOUCHED else [site], replace=keep):
            moved[past] = [
                layerwise.run(h, calls, start=layer, end=layer + 1)
                for h, calls in zip(streams.hidden[past], streams.calls, strict=True)
            ]
    return moved, outputs


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A block that is replaced in one stream: ``entered`` are the hidden states before its layer, of every
    window.
    """

    layerwise: Layerwise
    site: AttentionSite
    layer: int
    calls: Sequence[Calls]
    entered: Sequence[Tensor]

    def input(self, hidden: Tensor, calls: Calls) -> Tensor:
        """Return the block's input on one window."""
        seen: list[Tensor] = []

        def see(_: int, x: Tensor, heads: Tensor) -> None:
            seen.append(x)
            raise _SeenError

        with capture([self.site], see=see), suppress(_SeenError):
            self.layerwise.run(hidden, calls, start=self.layer, end=self.layer + 1)
        return seen[0]


def _fit_one(
    block: _Block, targets: Sequence[Tensor], first: LinearProbe, summary: Summary, fits: int
) -> StateProbe:
    """Fit the deviation from the first probe on the windows up to ``fits``; those behind choose the
    strength.
    """
    parts = [no_moments(summary.features, block.site.width, device=targets[0].device) for _ in range(2)]
    for index, (hidden, call, target) in enumerate(zip(block.entered, block.calls, targets, strict=True)):
        x = block.input(hidden, call)
        parts[index >= fits].add(summary(x), target.float() - first(x))
    fit, select = (covariances(part) for part in parts)
    change = chosen_on(select, fit)
    weight = change.weight.clone()
    weight[: len(first.weight)] += first.weight.double()
    linear = LinearProbe(weight=weight, bias=change.bias + first.bias.double(), strength=change.strength)
    return StateProbe(summary=summary, linear=linear.float())


def _moved(block: _Block, probe: StateProbe) -> list[Tensor]:
    """Return the hidden states behind the block's layer, with the probe in its place."""
    with capture([block.site], replace=lambda _, x, output: probe(x).to(output.dtype)):
        pairs = zip(block.entered, block.calls, strict=True)
        return [block.layerwise.run(h, call, start=block.layer, end=block.layer + 1) for h, call in pairs]


def _probes_of(chosen: Sequence[int], probes: Mapping[Past, StateProbe], layerwise: Layerwise) -> Chosen:
    ordered = sorted(chosen, key=lambda site: layerwise.layer_of[site])
    return {site: probes[frozenset(ordered[: place + 1])] for place, site in enumerate(ordered)}


def _select_changes(
    layerwise: Layerwise, streams: _Streams, sets: Mapping[int, Sequence[int]], fits: int
) -> dict[int, float]:
    def loss(past: Past) -> Tensor:
        losses = [
            layerwise.losses(h, calls)
            for h, calls in zip(streams.hidden[past][fits:], streams.calls[fits:], strict=True)
        ]
        return torch.cat(losses).mean()

    base = loss(UNTOUCHED)
    return {size: float(loss(frozenset(chosen)) - base) for size, chosen in sets.items()}
