"""One CRAM block: the figure of the paper as code.

    x = x + working(norm(x), gap)                 every token, linear time, carries state
    h = norm(x)
    route = router(need(h), familiarity(h))       from h and O(1) state: no key or value is read to decide
    x = x + {WORKING: 0, SEMANTIC: f_sem(h), EPISODIC: retrieval(h)}[route]
    x = x + mlp(norm(x))

Keys and values are written for every token; only the read is skipped. The decision for step t depends on
steps <= t alone. What the paper does instead, a quality that needs the read, is
:class:`torchcram.memory.observed.ObservedQualityBlock`; ``semantic="none"`` consolidates nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcram.accounting import routed_cost, size_of
from torchcram.memory.budget import counted
from torchcram.memory.episodic import EpisodicMemory
from torchcram.memory.familiarity import FamiliarityEstimator
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.gumbel_router import GumbelRouter
from torchcram.memory.recall import Recall, Recollection, Taught
from torchcram.memory.residual import ResidualBlock
from torchcram.memory.router import NeedFamiliarityRouter
from torchcram.memory.semantic import SEMANTIC_MEMORIES
from torchcram.memory.surprise import SurpriseTrace
from torchcram.ops.collective import step_mean
from torchcram.ops.routing import priced, straight_through_mix
from torchcram.strict import require_choice, require_positive
from torchcram.types import BlockOutput, MemoryState, MixingCost, Route, RoutingDecision, Step

ROUTERS: dict[str, type[NeedFamiliarityRouter] | type[GumbelRouter]] = {
    "need_familiarity": NeedFamiliarityRouter,
    "gumbel3": GumbelRouter,
}


class CRAMBlock(ResidualBlock):
    """``x + {WORKING: 0, SEMANTIC: f_sem(h), EPISODIC: r_E(h)}[route]`` with ``h = norm(x)``, between a
    working memory and a feed-forward network.

    Args:
        d_model: width.
        heads: heads of the episodic memory.
        window: bound of the episodic buffer in entries, or None.
        working: ``"time_aware_ssm"`` or the paper's ``"ct_ode"``.
        state_size: channels of the working memory.
        semantic: ``"slots"``, the paper's ``"low_rank"``, or ``"none"``: need and price alone decide.
        slots: number of slots.
        rank: bottleneck of ``low_rank``; None for the paper's d_model / 16.
        router: ``"need_familiarity"`` or the paper's ``"gumbel3"``.
        threshold: quality above which semantic memory answers; None for the router's own (0.4, and the
            paper's 0.83).
        router_noise: scale of the router's noise in training; None for the router's own.
        surprise: whether a surprise trace vetoes familiarity (needs slots).
        quality_variance: sigma^2 of the quality ``exp(-error / sigma^2)``.
        detach: keep the consolidation loss away from the trunk. Slots learn without gradients and never touch
            it; this is for the low rank.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    routed: ClassVar[bool] = True
    recalls: ClassVar[type[Recall]] = Recall
    predicts: ClassVar[bool] = True

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        window: int | None = None,
        working: str = "time_aware_ssm",
        state_size: int = 64,
        semantic: str = "slots",
        slots: int = 256,
        rank: int | None = None,
        router: str = "need_familiarity",
        threshold: float | None = None,
        router_noise: float | None = None,
        surprise: bool = True,
        quality_variance: float = 0.5,
        detach: bool = True,
        mlp_ratio: float = 4.0,
    ):
        require_positive(quality_variance=quality_variance)
        kind = SEMANTIC_MEMORIES[require_choice("semantic memory", semantic, SEMANTIC_MEMORIES)]
        _check_parts(semantic, surprise=surprise, router=router)
        super().__init__(d_model, working=working, state_size=state_size)
        self.episodic = EpisodicMemory(d_model, heads=heads, window=window, marks=surprise)
        self.semantic = kind(d_model, slots=slots, rank=rank)
        self.familiarity = (
            FamiliarityEstimator(d_model, evidence_size=self.semantic.evidence_size)
            if semantic != "none" and self.predicts
            else None
        )
        given = {"threshold": threshold, "noise_scale": router_noise}
        options = {name: value for name, value in given.items() if value is not None}
        self.router = ROUTERS[require_choice("router", router, ROUTERS)](d_model, **options)
        self.surprise = SurpriseTrace(d_model, slots=slots) if surprise else None
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)
        self.recall = self.recalls(
            episodic=self.episodic,
            semantic=self.semantic,
            familiarity=self.familiarity,
            surprise=self.surprise,
            detach=detach,
            variance=quality_variance,
        )

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return replace(
            super().init_state(batch_size),
            episodic=self.episodic.init_state(batch_size),
            surprise=None if self.surprise is None else self.surprise.init_state(batch_size),
        )

    def forward(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        step: Step,
        state: MemoryState | None = None,
    ) -> BlockOutput:
        """Mix along time. See :class:`torchcram.types.SequenceMixer`."""
        step, control = step.with_noise(), step.control
        state = self.init_state(len(step.gap)) if state is None else state
        assert state.episodic is not None

        x, working = self.work(hidden_states, step, state.working)
        h = self.memory_norm(x)

        trace = self.recall.follow(h, state.surprise, step, self.selection)
        surprise = None if trace is None else trace.surprise
        memory, time = self.episodic.write(h, step.gap, state.episodic, surprise=surprise, mask=step.mask)
        read = partial(self.episodic.read, h, time, memory, before=state.episodic, dense=self.selection.dense)

        seen = self.seen_by_router(h, hidden_states, step)
        need = self.router.need(seen, step)
        known = self.recall(h, need, trace, step, read=read, selection=self.selection)
        decision = self.router.decide(seen, need, known, step, state.spent)
        retrieval = read(decision.computed) if known.retrieval is None else known.retrieval
        x = self.feed(x + self.mix(retrieval, known, decision, learns=control.teaches_routers))

        taught = self.recall.teach(known, retrieval, decision, need) if control.consolidates else Taught()
        if taught.lesson is not None:
            taught.losses.update(self.recall.teach_bindings(h, time, memory, decision.read, step))
        reading = priced(decision.probabilities[..., Route.EPISODIC], steady=control.steady)
        counts = control.budget is not None or state.spent is not None
        return BlockOutput(
            hidden_states=x,
            state=MemoryState(
                working=working,
                episodic=self.episodic.forget(memory),
                surprise=None if trace is None else trace.state,
                spent=counted(state.spent, decision.read, step.mask) if counts else None,
            ),
            decision=decision,
            losses={**taught.losses, "price": step_mean(reading, step.mask)},
            signals=taught.signals | self._signals(need, surprise, step),
            lesson=taught.lesson,
            owner=self,
        )

    def seen_by_router(self, h: Tensor, hidden_states: Tensor, step: Step) -> Tensor:
        """Return what the router decides from: the token's state."""
        del hidden_states, step
        return h

    def mix(
        self, retrieval: Tensor, known: Recollection, decision: RoutingDecision, *, learns: bool
    ) -> Float[Tensor, "batch time d_model"]:
        """Return what the chosen memory adds to each token; it teaches the router what a read is worth."""
        semantic = decision.route == int(Route.SEMANTIC)
        if not torch.is_grad_enabled():
            return retrieval * decision.used[..., None] + known.value * semantic[..., None]
        for_retrieval, for_answer = self.router.credit(decision.probabilities.to(retrieval.dtype))
        weight = decision.weight.to(retrieval.dtype) * learns
        told = weight * (known.asked & decision.computed)
        return straight_through_mix(retrieval, decision.used, for_retrieval, weight) + straight_through_mix(
            known.value, semantic, for_answer, told
        )

    @staticmethod
    def _signals(need: Tensor, surprise: Tensor | None, step: Step) -> dict[str, Tensor]:
        """Return what reports want to see of every token."""
        signals = {} if surprise is None else {"surprise": surprise}
        if step.control.reads == "routed":
            signals["need"] = need.detach().masked_fill(~step.real, torch.nan)
        return signals

    def fast_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that decide and consolidate: they want a faster learning rate."""
        parts = (self.router, self.familiarity, self.semantic, self.surprise)
        return [parameter for part in parts if part is not None for parameter in part.parameters()]

    def after_step(self, output: BlockOutput) -> None:
        """Let semantic memory take in the lesson of a training step."""
        if output.lesson is not None:
            self.semantic.learn(output.lesson)

    def cost(self) -> MixingCost:
        """Return what mixing along time costs: see :class:`torchcram.types.MixingCost`."""
        router, semantic, familiarity = map(size_of, (self.router, self.semantic, self.familiarity))
        flags = 0 if self.surprise is None else self.surprise.slots
        return routed_cost(
            self.d_model, router=router, semantic=semantic, familiarity=familiarity, flags=flags
        )


def _check_parts(semantic: str, *, surprise: bool, router: str) -> None:
    """Raise ValueError for parts that do not go together."""
    if surprise and semantic != "slots":
        raise ValueError(
            f"the surprise trace flags slots, but semantic is {semantic!r}: set surprise to false, "
            "or semantic to 'slots'"
        )
    if router == "gumbel3" and semantic == "none":
        raise ValueError(
            "router 'gumbel3' chooses between three memories, but semantic is 'none': set router to "
            "'need_familiarity'"
        )
