"""What replacing attention really costs: the change of the loss when outputs of a layer, of several layers,
or of single tokens are replaced or dropped.

Every change is against the untouched model on the same tokens. Layers are ranked on select text, by how far
the model's predictions move (the divergence is far less noisy than the change of the loss); thresholds of
routing are set on select text, too. The test text only measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from torchcram.pretrained.analysis.harm import ERROR, Forecast, relative_error
from torchcram.pretrained.analysis.layerwise import Calls, Layerwise, token_losses
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite

# From the input and the output of a block to what takes the output's place.
Stand = Callable[[Tensor, Tensor], Tensor]
# Tokens whose divergence is computed at once.
CHUNK = 256


def replacing(probe: Callable[[Tensor], Tensor]) -> Stand:
    """Return a stand-in that gives the prediction of a probe."""
    return lambda x, output: probe(x).to(output.dtype)


def dropping(x: Tensor, output: Tensor) -> Tensor:
    """Stand in with nothing."""
    return torch.zeros_like(output)


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What happens when one block alone is replaced or dropped, on select text.

    Attributes:
        loss: change of the loss.
        divergence: of the predictions, from those of the untouched model, in nats.
    """

    loss: float
    divergence: float


class Prefixes:
    """Variants of a model on one window; the hidden states before each layer of the untouched model are
    computed once.

    Args:
        layerwise: the model.
        sites: all of its attention blocks.
        ids: tokens of the window.
    """

    def __init__(self, layerwise: Layerwise, sites: Sequence[AttentionSite], ids: Tensor):
        self.layerwise, self.sites = layerwise, sites
        self.calls: Calls = layerwise.embed(ids)
        self.hidden = [self.calls.embedded]
        for layer in range(len(layerwise.layers)):
            self.hidden.append(layerwise.run(self.hidden[-1], self.calls, start=layer, end=layer + 1))

    def logits(self, stands: Mapping[int, Stand]) -> Float[Tensor, "tokens vocabulary"]:
        """Return the logits with some outputs replaced; without any, those of the untouched model."""
        if not stands:
            return self.layerwise.logits(self.hidden[-1], self.calls)
        start = min(self.layerwise.layer_of[number] for number in stands)
        chosen = sorted(stands)
        with capture(
            [self.sites[number] for number in chosen],
            replace=lambda place, x, output: stands[chosen[place]](x, output),
        ):
            return self.layerwise.logits(
                self.layerwise.run(self.hidden[start], self.calls, start=start), self.calls
            )

    def losses(self, stands: Mapping[int, Stand]) -> Float[Tensor, " predictions"]:
        """Return the loss of each next token."""
        return token_losses(self.logits(stands), self.calls.ids)


@torch.no_grad()
def each_alone(
    layerwise: Layerwise,
    sites: Sequence[AttentionSite],
    windows: Sequence[Tensor],
    stands: Sequence[Stand],
    *,
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[Alone]:
    """Measure every block alone with its stand-in."""
    changes, moved, count = torch.zeros(len(sites)), torch.zeros(len(sites)), 0
    for ids in windows:
        prefixes = Prefixes(layerwise, sites, ids)
        base = prefixes.logits({})
        loss = token_losses(base, ids).sum()
        for number, stand in enumerate(stands):
            logits = prefixes.logits({number: stand})
            changes[number] += float(token_losses(logits, ids).sum() - loss)
            moved[number] += divergence(base, logits)
        count += len(ids) - 1
        advance(len(ids))
    return [
        Alone(loss=float(change) / count, divergence=float(move) / count)
        for change, move in zip(changes, moved, strict=True)
    ]


def divergence(base: Float[Tensor, "tokens vocabulary"], logits: Float[Tensor, "tokens vocabulary"]) -> float:
    """Return the divergence of predictions from the untouched model's, summed over tokens."""
    parts = zip(base.split(CHUNK), logits.split(CHUNK), strict=True)
    return sum(
        float(
            kl_div(
                log_softmax(new.float(), -1), log_softmax(old.float(), -1), log_target=True, reduction="sum"
            )
        )
        for old, new in parts
    )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Loss changes on test text.

    Attributes:
        base: loss of the untouched model.
        documents: number of the document of each window.
        predictions: of each window.
        changes: of each variant, summed over each window's predictions.
    """

    base: float
    documents: tuple[int, ...]
    predictions: tuple[int, ...]
    changes: dict[str, tuple[float, ...]]

    def change(self, variant: str) -> float:
        """Return the mean change of the loss of a variant, in nats per token."""
        return sum(self.changes[variant]) / sum(self.predictions)


@torch.no_grad()
def judge(
    layerwise: Layerwise,
    sites: Sequence[AttentionSite],
    windows: Sequence[Tensor],
    variants: Mapping[str, Mapping[int, Stand]],
    *,
    documents: Sequence[int],
    advance: Callable[[int], None] = lambda tokens: None,
) -> Judged:
    """Measure variants of the model on the same windows."""
    changes: dict[str, list[float]] = {name: [] for name in variants}
    total = 0.0
    for ids in windows:
        prefixes = Prefixes(layerwise, sites, ids)
        base = float(prefixes.losses({}).double().sum())
        total += base
        for name, stands in variants.items():
            changes[name].append(float(prefixes.losses(stands).double().sum()) - base)
        advance(len(ids))
    predictions = tuple(len(ids) - 1 for ids in windows)
    summed = {name: tuple(values) for name, values in changes.items()}
    return Judged(
        base=total / sum(predictions), documents=tuple(documents), predictions=predictions, changes=summed
    )


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
    losses = []
    for ids in windows:
        calls = layerwise.embed(ids)
        with capture(sites, replace=router):
            hidden = layerwise.run(calls.embedded, calls)
        losses.append(layerwise.losses(hidden, calls))
    return float(torch.cat(losses).double().mean())
