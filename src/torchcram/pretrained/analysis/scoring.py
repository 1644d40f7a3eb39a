"""One pass over the test split with the probes in hand: the score of every single operation, the MLP
probe's error, and block influence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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

    def projected(self, heads: Float[Tensor, "*tokens heads_width"]) -> Float[Tensor, "*tokens width"]:
        """Return the block's output for given heads side by side."""
        return heads @ self.weight + self.bias


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
    sums = _Sums(sites, views)
    with _streams(model, sites, sums.streams), at_rest(model), capture(sites, see=sums.see):
        for ids in windows:
            hidden_states(model, ids)
            sums.tokens += len(ids)
            advance(len(ids))
    return sums.scored()


class _Sums:
    """What is summed up on the way; ``streams`` are those before blocks that are not seen yet."""

    def __init__(self, sites: Sequence[AttentionSite], views: Sequence[SiteView]):
        self.sites, self.views, self.tokens = sites, views, 0
        self.rows: list[list[dict[str, Tensor]]] = [[] for _ in sites]
        shape = (len(sites), max(site.heads for site in sites), len(THRESHOLDS))
        self.shares = {name: torch.zeros(shape, dtype=torch.float64) for name in DEFINITIONS}
        self.mlp_error, self.influence = (torch.zeros(len(sites), dtype=torch.float64) for _ in range(2))
        self.streams: dict[int, Tensor] = {}

    def see(self, number: int, x: Tensor, y: Tensor) -> None:
        """Take in the heads ``y`` of one block on one window."""
        view, y = self.views[number], y.float()
        predicted, output = view.heads(x), view.projected(y)
        scores = operation_scores(output, view.projected(predicted), view.projected(view.mean))
        self.rows[number].append(scores)
        self._add_shares(number, y, predicted)
        if view.mlp is not None:
            wrong = (view.mlp.predict(x) - y) @ view.weight
            self.mlp_error[number] += float(wrong.double().square().sum())
        if number in self.streams:
            kept = block_influence(self.streams.pop(number).float(), output)
            self.influence[number] += float(kept.double().sum())

    def _add_shares(self, number: int, y: Tensor, predicted: Tensor) -> None:
        shape = (self.sites[number].heads, self.sites[number].head_size)
        by_head = [part.unflatten(-1, shape) for part in (y, predicted, self.views[number].mean)]
        for name, values in operation_scores(*by_head).items():
            reached = [(values >= threshold).double().sum(0) for threshold in THRESHOLDS]
            self.shares[name][number] += torch.stack(reached, -1).cpu()

    def scored(self) -> Scored:
        """Return the means over all tokens."""
        probed = all(view.mlp is not None for view in self.views)
        missing = torch.full_like(self.mlp_error, float("nan"))
        return Scored(
            scores={
                name: torch.stack([torch.cat([window[name] for window in site]).cpu() for site in self.rows])
                for name in DEFINITIONS
            },
            head_shares={name: counts / self.tokens for name, counts in self.shares.items()},
            mlp_error=self.mlp_error / self.tokens if probed else missing,
            influence=self.influence / self.tokens,
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


@contextmanager
def _streams(model: Any, sites: Sequence[AttentionSite], streams: dict[int, Tensor]) -> Iterator[None]:
    """Keep what each block's layer is called with, by the number of the block."""
    with ExitStack() as stack:
        for number, site in enumerate(sites):
            hook = _decoder_layer(model, site).register_forward_pre_hook(
                _keep_stream(streams, number), with_kwargs=True
            )
            stack.callback(hook.remove)
        yield


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
