"""Predict, from the input alone, how wrong the probe will be for a token, and how much that will hurt.

Local error is the relative error of the probe. Downstream harm is, to first order, the gradient of the loss
with respect to the attention's output times the error; its sign averages out, so that what is learned is half
its square: the expected loss, to second order, under the Fisher information.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.analysis.layerwise import token_losses
from torchcram.pretrained.analysis.moments import Moments, covariances, no_moments
from torchcram.pretrained.analysis.ridge import LinearProbe, chosen_on
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite

TINY = 1e-12
# Of every four windows one chooses the strength.
HELD = 4
ERROR, HARM = 0, 1


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Predictions of log error and log harm for one block.

    Attributes:
        linear: from the input to both logarithms.
        scale: measured mean harm over the mean of its prediction on held-out windows; the mean of a logarithm
            is not the logarithm of the mean.
    """

    linear: LinearProbe
    scale: float

    def __call__(self, x: Float[Tensor, "tokens inputs"]) -> Float[Tensor, "tokens 2"]:
        """Return both logarithms for every token."""
        return self.linear(x)

    def harm(self, x: Float[Tensor, "tokens inputs"]) -> Float[Tensor, " tokens"]:
        """Return the predicted change of the loss, in nats, summed over the predictions behind the token."""
        return self(x)[:, HARM].exp() * self.scale


def relative_error(
    output: Float[Tensor, "tokens width"], predicted: Float[Tensor, "tokens width"]
) -> Float[Tensor, " tokens"]:
    """Return the squared error over the squared output of each token."""
    return (output - predicted).square().sum(-1) / (output.square().sum(-1) + TINY)


def first_order_harm(
    gradient: Float[Tensor, "tokens width"], change: Float[Tensor, "tokens width"]
) -> Float[Tensor, " tokens"]:
    """Return half the squared product of gradient and change of each token."""
    return (gradient * change).sum(-1).square() / 2


def learn_harm(
    model: Any,
    sites: Sequence[AttentionSite],
    windows: Sequence[Tensor],
    *,
    probes: Sequence[LinearProbe],
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[Forecast]:
    """Fit the forecasts of all blocks with one forward and backward pass over each window.

    Args:
        model: of Transformers, at rest.
        sites: its attention blocks.
        windows: tokens, at least two windows.
        probes: from the input to the block's output.
        advance: is told the tokens of each finished window.
    """
    parts = [[no_moments(site.width, 2, device=windows[0].device) for _ in range(2)] for site in sites]
    held: list[list[tuple[Tensor, Tensor]]] = [[] for _ in sites]
    for index, ids in enumerate(windows):
        choosing = index % HELD == HELD - 1 or (index == len(windows) - 1 and len(windows) < HELD)
        for number, (x, error, harm) in enumerate(measured(model, sites, ids, probes=probes)):
            parts[number][choosing].add(x, torch.stack(((error + TINY).log(), (harm + TINY).log()), 1))
            if choosing:
                held[number].append((x, harm))
        advance(len(ids))
    return [_forecast(*part, held=pairs) for part, pairs in zip(parts, held, strict=True)]


def measured(
    model: Any, sites: Sequence[AttentionSite], ids: Tensor, *, probes: Sequence[LinearProbe]
) -> list[tuple[Tensor, Float[Tensor, " tokens"], Float[Tensor, " tokens"]]]:
    """Return input, relative error and first-order harm of each block on one window."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    leaves: list[Tensor] = []

    def keep(number: int, x: Tensor, output: Tensor) -> Tensor:
        leaves.append(torch.zeros_like(output, requires_grad=True))
        inputs.append(x.detach())
        outputs.append(output.detach())
        return output + leaves[-1]

    with torch.enable_grad(), capture(sites, replace=keep):
        loss = token_losses(model(input_ids=ids[None], use_cache=False).logits[0], ids).sum()
        gradients = torch.autograd.grad(loss, leaves)
    measures = []
    for x, output, gradient, probe in zip(inputs, outputs, gradients, probes, strict=True):
        predicted = probe(x)
        harm = first_order_harm(gradient, predicted - output)
        measures.append((x, relative_error(output, predicted), harm))
    return measures


def learn_all_harm(study: Study, probes: Sequence[LinearProbe]) -> list[Forecast]:
    """Fit the forecasts of all blocks of a study, given its probes from input to block output."""
    windows = study.ids("fit", study.settings.harm_tokens, least=2)
    advance = study.progress.stage("learn downstream harm", total=sum(map(len, windows)))
    return learn_harm(study.model, study.sites, windows, probes=probes, advance=advance)


def _forecast(fit_sums: Moments, held_sums: Moments, *, held: Sequence[tuple[Tensor, Tensor]]) -> Forecast:
    linear = chosen_on(covariances(held_sums), covariances(fit_sums)).float()
    predicted = torch.cat([linear(x)[:, HARM].exp() for x, _ in held]).mean()
    harm = torch.cat([harm for _, harm in held]).mean()
    return Forecast(linear=linear, scale=float(harm / (predicted + TINY)))
