"""The router: which memory answers a token.

It decides from the token's state and the predicted quality, never from a read.

``NeedFamiliarityRouter`` (default) asks two questions: does the token need any retrieval (*need*, learned
from the task loss and the price of a read), and would semantic memory do (*familiar*)? ``GumbelRouter`` is
the paper's flat three-way Gumbel-softmax with its tipping point at quality 0.83. Noise is uniform in [0, 1),
drawn by the caller; None decides by threshold.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcram.ops.routing import gumbel_noise, logistic_noise
from torchcram.types import Route


def exploration_rate(
    need: Float[Tensor, "batch time"], *, least: float, most: float = 0.5
) -> Float[Tensor, "batch time"]:
    """Return the probability with which a token that would not read is computed all the same: ``least``, and
    up to ``most`` where *need* is undecided.

    The gradient of a skipped read is estimated from the explored ones, each counted with its inverse
    probability: looking most often where the estimate is needed most makes it less noisy at the same number
    of reads (importance sampling).
    """
    return (
        least + (most - least) * 4 * need.detach() * (1 - need.detach())
        if least < most
        else torch.full_like(need.detach(), least)
    )


class NeedFamiliarityRouter(nn.Module):
    """``p(EPISODIC) = need (1 - familiar)``, ``p(SEMANTIC) = need familiar``, ``p(WORKING) = 1 - need``.

    Args:
        d_model: width.
        threshold: predicted quality above which semantic memory answers, in (0, 1); calibration may replace
            it.
        noise_scale: scale of the logistic noise on *need* while training.
        steepness: how sharply *familiar* turns from 0 to 1 around the threshold, per logit.
    """

    def __init__(
        self, d_model: int, *, threshold: float = 0.4, noise_scale: float = 0.0, steepness: float = 4.0
    ):
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"threshold {threshold} must lie strictly between 0 and 1")
        self.noise_scale, self.steepness = noise_scale, steepness
        self.net = nn.Sequential(nn.Linear(d_model, 32), nn.SiLU(), last := nn.Linear(32, 1))
        nn.init.constant_(last.bias, 2.0)
        self.register_buffer("threshold_logit", torch.tensor(math.log(threshold / (1 - threshold))))
        self.threshold_logit: Tensor

    @property
    def offset(self) -> Tensor:
        """The bias of the logits of *need*: what is added to all tokens alike."""
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        return last.bias

    def need(
        self, hidden_states: Float[Tensor, "batch time d_model"], uniform: Float[Tensor, "batch time"] | None
    ) -> Float[Tensor, "batch time"]:
        """Return the probability that a token needs a retrieval; above one half it asks for one."""
        logits = full_precision(self.net, hidden_states)[..., 0]
        if uniform is not None and self.noise_scale > 0:
            logits = logits + self.noise_scale * logistic_noise(uniform).to(logits.dtype)
        return torch.sigmoid(logits)

    def decide(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        familiarity: Float[Tensor, "batch time"],
        uniform: Float[Tensor, "batch time 3"] | None,
        *,
        shift: float = 0.0,
    ) -> tuple[Float[Tensor, "batch time 3"], Int[Tensor, "batch time"]]:
        """Return the probabilities of the three routes and the route.

        Familiarity carries no gradient: the price moves *need* alone.
        """
        del hidden_states, uniform
        distance = torch.logit(familiarity.detach(), eps=1e-6) - self.threshold_logit - shift
        familiar = torch.sigmoid(self.steepness * distance)
        probabilities = torch.stack([1 - need, need * familiar, need * (1 - familiar)], -1)
        route = torch.where(
            need > 0.5,
            torch.where(distance > 0, int(Route.SEMANTIC), int(Route.EPISODIC)),
            int(Route.WORKING),
        )
        return probabilities, route

    def credit(
        self, probabilities: Float[Tensor, "batch time 3"]
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Return the probabilities that the gradients of the retrieval and of the semantic answer move.

        The retrieval moves *need*, whoever would have answered; the answer moves nothing. A wrong answer is a
        fault of familiarity, which has its own
        teacher: let it move need, and need learns not to ask at all.
        """
        return probabilities[..., Route.SEMANTIC] + probabilities[..., Route.EPISODIC], torch.zeros_like(
            probabilities[..., Route.SEMANTIC]
        )


class GumbelRouter(nn.Module):
    """The paper's router: one softmax over three logits, with Gumbel noise while training, the largest
    probability in evaluation.

    The logits see the token's state; the semantic one also rises with the predicted quality, and starts out
    equal to the episodic one at quality 0.83 (the paper's tipping point).

    Args:
        d_model: width.
        threshold: quality at which SEMANTIC and EPISODIC start out level.
        noise_scale: scale of the Gumbel noise; 1 in the paper.
        steepness: initial rise of the semantic logit from quality 0 to 1.
    """

    def __init__(
        self, d_model: int, *, threshold: float = 0.83, noise_scale: float = 1.0, steepness: float = 8.0
    ):
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"threshold {threshold} must lie strictly between 0 and 1")
        self.noise_scale = noise_scale
        self.net = nn.Linear(d_model, 3)
        self.rise = nn.Parameter(torch.tensor(float(steepness)))
        self.register_buffer("threshold_logit", torch.tensor(math.log(threshold / (1 - threshold))))
        self.threshold_logit: Tensor
        with torch.no_grad():
            self.net.weight.mul_(0.1)
            self.net.bias.copy_(torch.tensor([-2.0, 0.0, 0.0]))

    def need(
        self, hidden_states: Float[Tensor, "batch time d_model"], uniform: Float[Tensor, "batch time"] | None
    ) -> Float[Tensor, "batch time"]:
        """Every token asks semantic memory: this router has no separate question of need."""
        del uniform
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        return hidden_states.new_ones(hidden_states.shape[:-1], dtype=dtype)

    def decide(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        familiarity: Float[Tensor, "batch time"],
        uniform: Float[Tensor, "batch time 3"] | None,
        *,
        shift: float = 0.0,
    ) -> tuple[Float[Tensor, "batch time 3"], Int[Tensor, "batch time"]]:
        """Return the probabilities of the three routes and the route."""
        logits = full_precision(self.net, hidden_states)
        tipping = torch.sigmoid(self.threshold_logit + shift)
        lift = self.rise * (familiarity.detach() - tipping)
        logits = logits + torch.stack([torch.zeros_like(lift), lift, torch.zeros_like(lift)], -1)
        if uniform is not None and self.noise_scale > 0:
            logits = logits + self.noise_scale * gumbel_noise(uniform).to(logits.dtype)
        return logits.softmax(-1), logits.argmax(-1)

    def credit(
        self, probabilities: Float[Tensor, "batch time 3"]
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Return the probabilities that the gradients of the retrieval and of the semantic answer move:
        each its own route's.
        """
        return probabilities[..., Route.EPISODIC], probabilities[..., Route.SEMANTIC]


def full_precision(
    net: nn.Module, hidden_states: Float[Tensor, "batch time d_model"]
) -> Float[Tensor, "batch time out"]:
    """Run a router's network in fp32 (or fp64) under autocast, too: a decision must not hang on a
    rounding.
    """
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    with torch.autocast(hidden_states.device.type, enabled=False):
        if next(net.parameters()).dtype == dtype:
            return net(hidden_states.to(dtype))
        # A model in half precision: its weights are what they are, the arithmetic is not.
        return torch.func.functional_call(
            net,
            {name: weight.to(dtype) for name, weight in net.named_parameters()},
            (hidden_states.to(dtype),),
        )


ROUTERS: dict[str, type[NeedFamiliarityRouter] | type[GumbelRouter]] = {
    "need_familiarity": NeedFamiliarityRouter,
    "gumbel3": GumbelRouter,
}
