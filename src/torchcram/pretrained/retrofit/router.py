"""The router of a pretrained layer: need x familiarity, in nats.

*Need* is the harm that near attention alone would do to a token's predictions. *Familiarity* is the share of
it that semantic memory takes away. What is left, ``need * (1 - familiarity)``, is what a read would buy; the
token reads if that is more than a read costs. Both are predicted by a small network from the evidence, so no
read is needed to decide. Harm is the expected divergence from the untouched model, to second order, so harms
of layers and tokens add up, and one price serves all of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, sigmoid, softplus

from torchcram.pretrained.retrofit.evidence import Evidence, Standard, feature_count
from torchcram.types import Route, RoutingDecision

# Width of the network, as measured on SmolLM2 (experiments/14_retrofit_smollm2).
HIDDEN = 32
# Below this harm, in nats, near attention is as good as any other, and semantic memory is not asked.
NEGLIGIBLE = 1e-7
# Logarithm of the harm that a new-born router expects of a token, in nats: more than any price, so it reads.
UNKNOWN = 10.0


class HarmRouter(nn.Module):
    """Predicts need and familiarity.

    Args:
        width: of the block's input.
        heads: of its queries.
        head_size: of one.
        hidden: width of the network.
    """

    def __init__(self, *, width: int, heads: int, head_size: int, hidden: int = HIDDEN):
        super().__init__()
        self.heads = heads
        features = feature_count(width=width, heads=heads, head_size=head_size)
        self.standard = Standard(features)
        self.inner = nn.Linear(features, hidden)
        self.outer = nn.Linear(hidden, 2)
        with torch.no_grad():
            self.outer.weight.zero_()
            self.outer.bias.copy_(torch.tensor([UNKNOWN, -UNKNOWN]))

    def forward(self, evidence: Evidence) -> tuple[Float[Tensor, "*steps"], Float[Tensor, "*steps"]]:
        """Return the logarithm of need, in nats, and familiarity in logits."""
        inner = self.inner(self.standard(evidence.features()).to(self.inner.weight.dtype))
        log_need, familiar = self.outer(gelu(inner)).float().unbind(-1)
        return log_need, familiar

    def decide(self, evidence: Evidence, *, price: float) -> RoutingDecision:
        """Return the route of each token of a pass at a price of a read, in nats.

        Where nothing is remote, or the need is negligible, the route is WORKING.
        """
        log_need, logit = self(evidence)
        idle = (evidence.remote == 0) | (log_need.exp() <= NEGLIGIBLE)
        # need * (1 - familiarity), without the rounding of one minus nearly one.
        read = ~idle & ((log_need - softplus(logit)).exp() > price)
        route = torch.where(read, Route.EPISODIC, torch.where(idle, Route.WORKING, Route.SEMANTIC))
        return decision_of(route, familiarity=sigmoid(logit))


def decision_of(route: Tensor, *, familiarity: Tensor | None = None) -> RoutingDecision:
    """Return a decision without doubt: each token's route has probability one."""
    read = route == int(Route.EPISODIC)
    known = torch.zeros(route.shape, device=route.device) if familiarity is None else familiarity
    return RoutingDecision(
        route=route,
        probabilities=torch.nn.functional.one_hot(route, len(Route)).to(known.dtype),
        familiarity=known,
        explored=torch.zeros_like(read),
        weight=read.to(known.dtype),
        asked=route == int(Route.SEMANTIC),
    )
