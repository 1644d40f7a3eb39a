"""One pass over the test split with the probes in hand: the score of every single operation, the MLP
probe's error, and block influence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from torchcram.pretrained.analysis.gather import hidden_states
from torchcram.pretrained.analysis.mlp_probe import MLPProbe
from torchcram.pretrained.analysis.redundancy import (
    DEFINITIONS,
    THRESHOLDS,
    block_influence,
    operation_scores,
)
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.analysis.site_probes import SiteProbes
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite, at_rest, block_input


@dataclass(frozen=True, kw_only=True)
class SiteView:
    """What scoring needs of one block.

    Attributes:
        heads: probe from the input to the heads side by side.
        weight, bias: of the output projection.
        mean: mean of the heads over the fit split.
        mlp: the MLP probe, if there is one.
    """

    heads: LinearProbe
    weight: Float[Tensor, "heads_width width"]
    bias: Float[Tensor, " width"]
    mean: Float[Tensor, " heads_width"]
    mlp: MLPProbe | None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of the test split.

    Attributes:
        scores: of each block's operations, under each definition.
        head_shares: share of each head's operations at each threshold, under each definition.
        mlp_error: squared error per token of the MLP probe, behind the projection; NaN without one.
        influence: mean cosine of the stream before and after each block.
    """

    scores: dict[str, Float[Tensor, "layers tokens"]]
    head_shares: dict[str, Float64[Tensor, "layers heads thresholds"]]
    mlp_error: Float64[Tensor, " layers"]
    influence: Float64[Tensor, " layers"]


@torch.no_grad()
def score(
    model: Any,
    sites: Sequence[AttentionSite],
    windows: Sequence[Tensor],
    views: Sequence[SiteView],
    *,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Scored:
    """Score every operation of the windows."""
    heads = max(site.heads for site in sites)
    rows: list[list[dict[str, Tensor]]] = [[] for _ in sites]
    shares = {
        name: torch.zeros(len(sites), heads, len(THRESHOLDS), dtype=torch.float64) for name in DEFINITIONS
    }
    mlp_error, influence, count = (
        torch.zeros(len(sites), dtype=torch.float64),
        torch.zeros(len(sites), dtype=torch.float64),
        0,
    )
    residuals: dict[int, Tensor] = {}

    def see(number: int, x: Tensor, y: Tensor) -> None:
        view, site = views[number], sites[number]
        y, predicted = y.float(), view.heads(x)
        output = y @ view.weight + view.bias
        rows[number].append(
            operation_scores(output, predicted @ view.weight + view.bias, view.mean @ view.weight + view.bias)
        )
        by_head = [part.unflatten(-1, (site.heads, site.head_size)) for part in (y, predicted, view.mean)]
        for name, values in operation_scores(*by_head).items():
            shares[name][number] += torch.stack(
                [(values >= threshold).double().sum(0) for threshold in THRESHOLDS], -1
            ).cpu()
        if view.mlp is not None:
            mlp_error[number] += float(((view.mlp.predict(x) - y) @ view.weight).double().square().sum())
        if number in residuals:
            influence[number] += float(block_influence(residuals.pop(number).float(), output).double().sum())

    layers = [_decoder_layer(model, site) for site in sites]
    hooks = [
        layer.register_forward_pre_hook(_keep_stream(residuals, number), with_kwargs=True)
        for number, layer in enumerate(layers)
    ]
    try:
        with at_rest(model), capture(sites, see=see):
            for ids in windows:
                hidden_states(model, ids)
                count += len(ids)
                advance(len(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return Scored(
        scores={
            name: torch.stack([torch.cat([window[name] for window in site]).cpu() for site in rows])
            for name in DEFINITIONS
        },
        head_shares={name: counts / count for name, counts in shares.items()},
        mlp_error=mlp_error / count
        if all(view.mlp is not None for view in views)
        else torch.full_like(mlp_error, float("nan")),
        influence=influence / count,
    )


def score_test(study: Study, probes: Sequence[SiteProbes], mlps: Sequence[MLPProbe]) -> Scored:
    """Score the test split of a study; ``mlps`` may be empty."""
    views = [
        SiteView(
            heads=probe.heads.float(),
            weight=probe.weight.float(),
            bias=probe.bias.float(),
            mean=probe.mean.float(),
            mlp=mlps[number] if mlps else None,
        )
        for number, probe in enumerate(probes)
    ]
    advance = study.progress.stage("score the test split", total=study.corpus.tokens("test"))
    return score(study.model, study.sites, study.ids("test"), views, advance=advance)


def _decoder_layer(model: Any, site: AttentionSite) -> nn.Module:
    """The module of the list of layers that holds the block: what it is called with is the stream before
    the block.
    """
    parts = site.name.split(".")
    end = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return model.get_submodule(".".join(parts[: end + 1]))


def _keep_stream(residuals: dict[int, Tensor], number: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        residuals[number] = block_input(args, kwargs).flatten(0, -2)

    return hook
