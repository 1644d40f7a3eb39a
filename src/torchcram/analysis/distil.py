"""Train the probes of a set together, so that the predictions of the model with them in place come close to its own.

The refitted probes are good for the outputs of their own layers; what the layers behind make of their errors they do not know. Here the divergence of
the predictions (Hinton et al. 2015) is descended by Adam, over the probes alone: the model stays as it is, and so does the text's influence on it, since the
targets are the model's own predictions and not the next tokens. Each weight moves in units of what it moves: the deviations of its feature and its output.
The best probes on select text are kept, the refitted ones among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from torchcram.analysis.capture import capture
from torchcram.analysis.causal import CHUNK
from torchcram.analysis.layerwise import Layerwise
from torchcram.analysis.ridge import LinearProbe
from torchcram.analysis.sites import AttentionSite
from torchcram.analysis.state_probe import StateProbe

# Learning rate, in deviations of the output that a step moves it, and how often the probes are looked at on select text.
RATE, LOOKS = 0.02, 3


@dataclass(kw_only=True)
class _Student:
    """A probe under training: ``probe`` plus ``change``, in units of ``scale``."""

    probe: StateProbe
    scale: Float[Tensor, "features outputs"]
    change: Float[Tensor, "features outputs"]
    shift: Float[Tensor, " outputs"]

    def now(self) -> StateProbe:
        """Return the probe as it stands, with its gradient."""
        linear = self.probe.linear
        moved = replace(linear, weight=linear.weight + self.change * self.scale, bias=linear.bias + self.shift * self.scale.amax(0))
        return StateProbe(summary=self.probe.summary, linear=moved)


def distil(
    layerwise: Layerwise,
    sites: Sequence[AttentionSite],
    probes: Mapping[int, StateProbe],
    *,
    fit: Sequence[Tensor],
    select: Sequence[Tensor],
    advance: Callable[[int], None] = lambda tokens: None,
) -> tuple[dict[int, StateProbe], list[float]]:
    """Train the probes of one set; each window of the fit text is one step.

    Args:
        layerwise: the model.
        sites: all of its attention blocks.
        probes: by number of the site.
        fit: tokens of the windows to train on.
        select: tokens of the windows that choose.
        advance: is told the tokens of each window.

    Returns:
        The best probes, and the divergence on select text at each look, in nats per token; the first is that of the probes given.
    """
    students = _students(layerwise, sites, probes, fit[0])
    tensors = [tensor for student in students.values() for tensor in (student.change, student.shift)]
    optimizer = torch.optim.Adam(tensors, lr=RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5) * (1 - step / (len(fit) + 1)))
    looks = {round(len(fit) * part / LOOKS) for part in range(1, LOOKS + 1)}
    best, found = dict(probes), [_divergence(layerwise, sites, probes, select)]
    for step, ids in enumerate(fit, start=1):
        with torch.enable_grad():
            loss = _loss(layerwise, sites, {number: student.now() for number, student in students.items()}, ids) / len(ids)
            for tensor, gradient in zip(tensors, torch.autograd.grad(loss, tensors), strict=True):
                tensor.grad = gradient
        optimizer.step()
        schedule.step()
        advance(len(ids))
        if step in looks:
            now = {number: _still(student.now()) for number, student in students.items()}
            found.append(_divergence(layerwise, sites, now, select))
            best = now if found[-1] == min(found) else best
    return best, found


def _students(layerwise: Layerwise, sites: Sequence[AttentionSite], probes: Mapping[int, StateProbe], ids: Tensor) -> dict[int, _Student]:
    """Measure how far features and outputs deviate, on one window."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    numbers = sorted(probes)

    def keep(place: int, x: Tensor, output: Tensor) -> Tensor:
        seen[numbers[place]] = (x, output)
        return output

    with torch.no_grad(), capture([sites[number] for number in numbers], replace=keep):
        calls = layerwise.embed(ids)
        layerwise.run(calls.embedded, calls)
    students = {}
    for number, (x, output) in seen.items():
        probe = probes[number]
        features = probe.summary(x)
        inverse = 1 / features.std(0).clamp_min(1e-3 * float(features.std()))
        scale = (inverse[:, None] * output.float().std(0)) / features.shape[1] ** 0.5
        blank = torch.zeros_like(scale)
        students[number] = _Student(probe=probe, scale=scale, change=blank.requires_grad_(), shift=torch.zeros_like(scale[0]).requires_grad_())
    return students


def _loss(layerwise: Layerwise, sites: Sequence[AttentionSite], probes: Mapping[int, StateProbe], ids: Tensor) -> Tensor:
    """The divergence on one window, summed over its tokens."""
    numbers = sorted(probes)
    start = min(layerwise.layer_of[number] for number in numbers)
    with torch.no_grad():
        calls = layerwise.embed(ids)
        entered = layerwise.run(calls.embedded, calls, end=start)
        own = layerwise.logits(layerwise.run(entered, calls, start=start), calls)
    with capture([sites[number] for number in numbers], replace=lambda place, x, output: probes[numbers[place]](x).to(output.dtype)):
        theirs = layerwise.logits(layerwise.run(entered, calls, start=start), calls)
    parts = zip(own.split(CHUNK), theirs.split(CHUNK), strict=True)
    return torch.stack([kl_div(log_softmax(new.float(), -1), log_softmax(old.float(), -1), log_target=True, reduction="sum") for old, new in parts]).sum()


@torch.no_grad()
def _divergence(layerwise: Layerwise, sites: Sequence[AttentionSite], probes: Mapping[int, StateProbe], windows: Sequence[Tensor]) -> float:
    return float(sum(_loss(layerwise, sites, probes, ids) for ids in windows)) / sum(map(len, windows))


def _still(probe: StateProbe) -> StateProbe:
    linear = probe.linear
    return StateProbe(summary=probe.summary, linear=LinearProbe(weight=linear.weight.detach(), bias=linear.bias.detach(), strength=linear.strength))
