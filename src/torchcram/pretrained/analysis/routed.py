"""What routing single tokens costs: reads are skipped where a score is low.

Thresholds are set on select text, the change of the loss is measured on test text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.analysis.harm import ERROR, Forecast, relative_error
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite

# Policies of routing by token; the last puts nothing where the one before it puts the prediction.
POLICIES = ("oracle", "predicted_error", "predicted_harm", "predicted_harm_dropped")


class Router:
    """Skips the reads of single tokens: those whose score is at or below a threshold get the probe's
    prediction.

    Args:
        policy: ``oracle`` (the true relative error, which needs the read), ``predicted_error`` or
            ``predicted_harm``, which see the input alone; ``_dropped`` behind it puts nothing in place of
            skipped outputs.
        probes: of all blocks.
        forecasts: of all blocks.
        threshold: of the score.
    """

    def __init__(
        self,
        policy: str,
        *,
        probes: Sequence[Callable[[Tensor], Tensor]],
        forecasts: Sequence[Forecast],
        threshold: float = float("inf"),
    ):
        self.policy, self.drop = policy.removesuffix("_dropped"), policy.endswith("_dropped")
        self.probes, self.forecasts, self.threshold = probes, forecasts, threshold
        self.skipped, self.seen = torch.zeros(len(probes)), torch.zeros(len(probes))

    def score(self, number: int, x: Tensor, output: Tensor) -> Float[Tensor, " tokens"]:
        """Return what decides about each token; low is skipped first."""
        if self.policy == "oracle":
            return relative_error(output, self.probes[number](x))
        forecast = self.forecasts[number]
        return forecast(x)[:, ERROR] if self.policy == "predicted_error" else forecast.harm(x)

    def __call__(self, number: int, x: Tensor, output: Tensor) -> Tensor:
        """Return the output with the skipped tokens replaced."""
        skip = self.score(number, x, output) <= self.threshold
        self.skipped[number] += int(skip.sum())
        self.seen[number] += len(skip)
        return torch.where(
            skip[:, None],
            torch.zeros_like(output) if self.drop else self.probes[number](x).to(output.dtype),
            output,
        )


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold for a share of all reads of select text.

    Attributes:
        threshold: of the score.
        by_layer: share of the reads below it in each block.
        mean_score: sum of the scores below it, per token; for ``predicted_harm`` the predicted change of the
            loss.
    """

    threshold: float
    by_layer: tuple[float, ...]
    mean_score: float


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What one policy comes to at one skip rate, on test text.

    Attributes:
        policy: see :class:`Router`.
        skip_rate: share of the reads that were skipped.
        loss_change: against the untouched model, in nats per token.
        wanted_rate: the skip rate that the threshold was set for.
        select: the threshold, set on select text.
        tokens: of the test text.
    """

    policy: str
    skip_rate: float
    loss_change: float
    wanted_rate: float
    select: Threshold
    tokens: int


@torch.no_grad()
def thresholds(
    layerwise: Layerwise,
    sites: Sequence[AttentionSite],
    windows: Sequence[Tensor],
    router: Router,
    *,
    rates: Sequence[float],
) -> dict[float, Threshold]:
    """Return, for each skip rate, the threshold below which that share of all reads of the windows lies."""
    scores: list[list[Tensor]] = [[] for _ in sites]

    def note(number: int, x: Tensor, output: Tensor) -> Tensor:
        scores[number].append(router.score(number, x, output))
        return output

    for ids in windows:
        calls = layerwise.embed(ids)
        with capture(sites, replace=note):
            layerwise.run(calls.embedded, calls)
    table = torch.stack([torch.cat(rows) for rows in scores]).double()
    ordered = table.flatten().sort().values
    return {rate: _below(table, float(ordered[max(round(rate * len(ordered)) - 1, 0)])) for rate in rates}


def _below(table: Float[Tensor, "sites tokens"], threshold: float) -> Threshold:
    below = table <= threshold
    shares = below.double().mean(1).tolist()
    return Threshold(
        threshold=threshold, by_layer=tuple(shares), mean_score=float(table[below].sum()) / table.shape[1]
    )


@torch.no_grad()
def route(
    layerwise: Layerwise, sites: Sequence[AttentionSite], windows: Sequence[Tensor], router: Router
) -> float:
    """Return the mean loss with a router in charge."""
    with capture(sites, replace=router):
        return layerwise.mean_loss(windows)


@torch.no_grad()
def route_all(
    study: Study, layerwise: Layerwise, *, probes: Sequence[LinearProbe], forecasts: Sequence[Forecast]
) -> list[Routed]:
    """Route single tokens of a study by every policy at every skip rate."""
    rates = study.settings.skip_rates
    select, test = (study.ids(split, study.settings.route_tokens) for split in ("select", "test"))
    advance = study.progress.stage("route single tokens", total=len(POLICIES) * len(rates), unit="settings")
    base = layerwise.mean_loss(test)
    routed = []
    for policy in POLICIES:
        scoring = Router(policy, probes=probes, forecasts=forecasts)
        chosen = thresholds(layerwise, study.sites, select, scoring, rates=rates)
        for rate, threshold in chosen.items():
            router = Router(policy, probes=probes, forecasts=forecasts, threshold=threshold.threshold)
            loss = route(layerwise, study.sites, test, router)
            routed.append(
                Routed(
                    policy=policy,
                    skip_rate=float(router.skipped.sum() / router.seen.sum()),
                    loss_change=loss - base,
                    wanted_rate=rate,
                    select=threshold,
                    tokens=sum(map(len, test)),
                )
            )
            advance(1)
    return routed
