"""The three memories of one layer: near attention (WORKING), a predicted remote part (SEMANTIC), a read
(EPISODIC).

It stands inside the attention block of the pretrained model, between its projections, and knows nothing of
families.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcram.memory.budget import affordable
from torchcram.pretrained.retrofit.attention import (
    block_of,
    near_attention,
    remote_attention,
    whole_attention,
)
from torchcram.pretrained.retrofit.control import ReadControl
from torchcram.pretrained.retrofit.entries import Entries, Kept
from torchcram.pretrained.retrofit.evidence import Evidence
from torchcram.pretrained.retrofit.gist import gist_of
from torchcram.pretrained.retrofit.kept import Keeper, KeptBlocks, kept_of
from torchcram.pretrained.retrofit.parts import Part, merge
from torchcram.pretrained.retrofit.reach import Reach
from torchcram.pretrained.retrofit.router import HarmRouter, decision_of
from torchcram.pretrained.retrofit.semantic import SemanticMemory
from torchcram.types import Route, RoutingDecision

# Share of the tokens of a pass above which semantic memory is asked about all of them.
NEARLY_ALL = 0.7


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one pass asks of a layer's memories; each sequence's real tokens stand at the left.

    Attributes:
        hidden: input of the attention block.
        query: as it is compared: rotated and scaled.
        address: the query before rotation, scaled.
        entries: what can be looked at.
        real: False on padding; None without any.
        spent: tokens and reads of each sequence before this pass, for budgets; None if nobody counts.
    """

    hidden: Float[Tensor, "batch time width"]
    query: Float[Tensor, "batch heads time d_head"]
    address: Float[Tensor, "batch heads time d_head"]
    entries: Entries
    real: Bool[Tensor, "batch time"] | None = None
    spent: Int[Tensor, "batch 2"] | None = None


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is known of the entries that left the window, of fixed size.

    Attributes:
        sums: of their keys and values, see :mod:`torchcram.pretrained.retrofit.gist`.
        kept: those that stay at hand, see :mod:`torchcram.pretrained.retrofit.kept`; None where none do.
    """

    sums: Float[Tensor, "batch kv_heads twice"]
    kept: Kept | None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the memories return.

    Attributes:
        heads: attention of every head.
        decision: the route of each token.
        left: the state behind this pass.
    """

    heads: Float[Tensor, "batch heads time d_head"]
    decision: RoutingDecision
    left: Left


class LayerMemory(nn.Module):
    """The memories of one layer.

    Args:
        reach: what is near.
        semantic: predicts the remote part.
        router: decides what is read; None for a layer that never reads, and keeps no remote entries.
        control: shared by all layers of the model.
        keeper: tells which entries stay at hand behind the window; None if none do.
    """

    def __init__(
        self,
        *,
        reach: Reach,
        semantic: SemanticMemory,
        router: HarmRouter | None,
        control: ReadControl,
        keeper: Keeper | None = None,
    ):
        super().__init__()
        self.reach, self.semantic, self.router, self.control = reach, semantic, router, control
        self.keeper = keeper

    def scores(
        self, hidden: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch kv_heads time"] | None:
        """Return how notable tokens are, None where nothing is kept."""
        return self.keeper(hidden) if self.keeper is not None and self.reach.kept else None

    def forward(self, asked: Asked) -> Answered:
        """Attend to what is near, and put a predicted or the true remote part beside it."""
        evidence, left = self.evidence(asked)
        decision = self.decide(asked, evidence)
        heads = evidence.near.value
        predicted = decision.asked
        if bool(predicted.any()):
            heads = self._predicted(evidence, predicted)
        heads = heads.transpose(1, 2)
        if bool(decision.used.any()):
            whole = whole_attention(asked.query, asked.entries, self.reach, decision.used)
            heads = torch.where(decision.used[:, None, :, None], whole, heads)
        return Answered(heads=heads, decision=decision, left=left)

    def _predicted(
        self, evidence: Evidence, predicted: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time heads d_head"]:
        """Return near attention, for some tokens with the predicted remote part beside it."""
        near = evidence.near.value
        if float(predicted.float().mean()) > NEARLY_ALL:
            # To pick out nearly all of them costs more than to predict for the few others, too.
            heads = merge(evidence.near, self.semantic(evidence)).to(near.dtype)
            return torch.where(predicted[..., None, None], heads, near)
        some = evidence.chosen(predicted)
        heads = merge(some.near, self.semantic(some)).to(near.dtype)
        return near.index_put(predicted.nonzero(as_tuple=True), heads)

    def evidence(self, asked: Asked) -> tuple[Evidence, Left]:
        """Return what is at hand about every token, and the state behind the last one."""
        batch, heads, steps, _ = asked.query.shape
        count = asked.entries.past.new_full((batch,), steps) if asked.real is None else asked.real.sum(1)
        blocks, kept = self._kept(asked.entries, count, steps)
        near = near_attention(asked.query, asked.entries, self.reach, blocks)
        gist, sums = gist_of(asked.entries, self.reach, count, steps)
        shared = heads // gist.key.shape[1]
        score = (asked.query.unflatten(1, (-1, shared)) * gist.key[:, :, None]).sum(-1).flatten(1, 2)
        evidence = Evidence(
            hidden=asked.hidden,
            near=_by_step(near),
            address=asked.address.transpose(1, 2),
            remote=self.reach.remote_count(asked.entries.query_ranks(steps)),
            gist_value=gist.value.repeat_interleave(shared, 1).transpose(1, 2),
            gist_score=score.transpose(1, 2),
        )
        return evidence, Left(sums=sums, kept=kept)

    def _kept(self, entries: Entries, count: Tensor, steps: int) -> tuple[KeptBlocks | None, Kept | None]:
        if not self.reach.kept:
            return None, None
        return kept_of(entries, self.reach, count, steps, block_of(steps))

    def remote(self, asked: Asked) -> Part:
        """Return the true remote part of every token: what semantic memory learns to predict."""
        return _by_step(remote_attention(asked.query, asked.entries, self.reach))

    def decide(self, asked: Asked, evidence: Evidence) -> RoutingDecision:
        """Return the route of every token."""
        beyond = evidence.remote > 0 if asked.real is None else (evidence.remote > 0) & asked.real
        if self.router is None or self.control.reads == "none":
            return decision_of(torch.where(beyond, Route.SEMANTIC, Route.WORKING))
        if self.control.reads == "all":
            decision = decision_of(torch.where(beyond, Route.EPISODIC, Route.WORKING))
        else:
            decision = self.router.decide(evidence, price=self.control.price)
            decision = _where(beyond, decision)
        return self._within_budget(decision, asked)

    def _within_budget(self, decision: RoutingDecision, asked: Asked) -> RoutingDecision:
        """Let semantic memory answer the reads that the budget does not pay."""
        if self.control.budget is None:
            return decision
        spent = asked.spent
        if spent is None:
            spent = torch.zeros(len(asked.query), 2, dtype=torch.long, device=asked.query.device)
        paid = affordable(self.control.budget, decision.used, asked.real, spent)
        route = torch.where(decision.used & ~paid, Route.SEMANTIC, decision.route)
        return decision_of(route, familiarity=decision.familiarity)


def _where(real: Tensor, decision: RoutingDecision) -> RoutingDecision:
    """Padding, and what has nothing remote, asks no memory."""
    route = torch.where(real, decision.route, Route.WORKING)
    return decision_of(route, familiarity=decision.familiarity)


def _by_step(part: Part) -> Part:
    """Turn ``batch heads time`` into ``batch time heads``."""
    return replace(part, value=part.value.transpose(1, 2), log_mass=part.log_mass.transpose(1, 2))
