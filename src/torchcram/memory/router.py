"""The router: which memory answers a token. It decides from the token's state and the predicted quality,
never from a read.

    p(WORKING) = 1 - need        p(SEMANTIC) = need familiar        p(EPISODIC) = need (1 - familiar)

``NeedFamiliarityRouter`` asks two questions: does the token need any retrieval (*need*, learned from the task
loss and the price of a read), and would semantic memory do (*familiar*)? The paper's router is
:class:`torchcram.memory.gumbel_router.GumbelRouter`. Noise is uniform in [0, 1); None decides by threshold.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcram.memory.budget import affordable
from torchcram.memory.exploration import drawn_to_explore, exploration_rate
from torchcram.memory.recall import Recollection
from torchcram.ops.routing import logistic_noise
from torchcram.types import ReadBudget, Route, RoutingDecision, Step


class Router(nn.Module):
    """``route = within_budget(allowed(choose(h, need(h), familiar)))``: what all routers do with a choice.

    A router is asked for *need* first, since semantic memory is asked only about tokens in need, and decides
    once their familiarity is known.
    """

    def need(
        self, hidden_states: Float[Tensor, "batch time d_model"], step: Step
    ) -> Float[Tensor, "batch time"]:
        """Return the probability that a token needs a retrieval; above one half it asks for one."""
        raise NotImplementedError

    def choose(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        familiarity: Float[Tensor, "batch time"],
        step: Step,
    ) -> tuple[Float[Tensor, "batch time 3"], Int[Tensor, "batch time"]]:
        """Return the probabilities of the three routes, and the route that they favour."""
        raise NotImplementedError

    def credit(
        self, probabilities: Float[Tensor, "batch time 3"]
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Return the probabilities that the gradients of the retrieval and of the semantic answer move."""
        raise NotImplementedError

    def decide(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        known: Recollection,
        step: Step,
        spent: Int[Tensor, "batch 2"] | None = None,
    ) -> RoutingDecision:
        """Return the decision for each token.

        Args:
            hidden_states: what the router sees.
            need: from :meth:`need`.
            known: what could be known without a read.
            step: what may be read, and noise.
            spent: each sequence's tokens and reads before these; None for none.
        """
        probabilities, chosen = self.choose(hidden_states, need, known.familiarity, step)
        route = _allowed(_answerable(chosen, known.asked), step)
        read = route == int(Route.EPISODIC)
        read = read if known.observed is None else read | known.observed
        explored = step.masked(drawn_to_explore(need, step) & ~read)
        weight = read.to(need.dtype)
        if step.control.exploration > 0:
            rate = exploration_rate(need, least=step.control.exploration)
            weight = weight + explored.to(need.dtype) / rate
        decision = RoutingDecision(
            route=route,
            probabilities=probabilities,
            familiarity=known.familiarity.detach(),
            explored=explored,
            weight=weight,
            asked=known.asked,
            observed=known.observed,
        )
        budget = step.control.budget
        return decision if budget is None else within_budget(decision, budget, step.mask, spent)


def _answerable(
    route: Int[Tensor, "batch time"], asked: Bool[Tensor, "batch time"]
) -> Int[Tensor, "batch time"]:
    """Return the routes with a read where semantic memory, unasked, has no answer."""
    return torch.where((route == int(Route.SEMANTIC)) & ~asked, int(Route.EPISODIC), route)


def _allowed(route: Int[Tensor, "batch time"], step: Step) -> Int[Tensor, "batch time"]:
    """Return the routes within what may be read; padding takes none."""
    if step.control.reads == "all":
        route = torch.full_like(route, int(Route.EPISODIC))
    if step.control.reads == "none":
        route = torch.where(route == int(Route.EPISODIC), int(Route.WORKING), route)
    return route if step.mask is None else torch.where(step.mask, route, int(Route.WORKING))


def within_budget(
    decision: RoutingDecision,
    budget: ReadBudget,
    mask: Bool[Tensor, "batch time"] | None,
    spent: Int[Tensor, "batch 2"] | None,
) -> RoutingDecision:
    """Return the decision with the reads that the budget does not pay for sent the likelier of the two other
    ways. A read that is not made teaches nothing: its weight is zero.
    """
    before = decision.route.new_zeros(len(decision.route), 2) if spent is None else spent
    denied = decision.used & ~affordable(budget, decision.used, mask, before)
    semantic = decision.probabilities[..., Route.SEMANTIC] > decision.probabilities[..., Route.WORKING]
    other = torch.where(semantic & decision.asked, int(Route.SEMANTIC), int(Route.WORKING))
    return replace(
        decision, route=torch.where(denied, other, decision.route), weight=decision.weight * ~denied
    )


class NeedFamiliarityRouter(Router):
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
        self, hidden_states: Float[Tensor, "batch time d_model"], step: Step
    ) -> Float[Tensor, "batch time"]:
        """Return the probability that a token needs a retrieval; above one half it asks for one."""
        logits = full_precision(self.net, hidden_states)[..., 0]
        if step.noise is not None and self.noise_scale > 0:
            logits = logits + self.noise_scale * logistic_noise(step.noise[..., 0]).to(logits.dtype)
        return torch.sigmoid(logits)

    def choose(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        familiarity: Float[Tensor, "batch time"],
        step: Step,
    ) -> tuple[Float[Tensor, "batch time 3"], Int[Tensor, "batch time"]]:
        """Return the probabilities of the three routes and the route.

        Familiarity carries no gradient: the price moves *need* alone.
        """
        del hidden_states
        distance = (
            torch.logit(familiarity.detach(), eps=1e-6) - self.threshold_logit - step.control.threshold_shift
        )
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
