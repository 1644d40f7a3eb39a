"""One CRAM block: the figure of the paper as code.

    x = x + working(norm(x), gap)                 every token, linear time, carries state
    h = norm(x)
    route = router(need(h), familiarity(h))       decided from h and O(1) state: no key or value is read to
    decide x = x + {WORKING: 0, SEMANTIC: f_sem(h), EPISODIC: retrieval(h)}[route] x = x + mlp(norm(x))

Keys and values are written for every token; only the read is skipped. The decision for step t depends on
steps <= t alone. What the paper does instead can be chosen: ``quality="observed"`` decides by a quality that
needs the read, and pays for it. So can what it is compared with: ``semantic="none"`` consolidates nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from torchcram.accounting import attention_cost
from torchcram.memory.budget import affordable, counted
from torchcram.memory.consolidation import consolidation_quality, relative_error
from torchcram.memory.episodic import EpisodicMemory
from torchcram.memory.familiarity import FamiliarityEstimator
from torchcram.memory.feed_forward import FeedForward
from torchcram.memory.router import ROUTERS, exploration_rate
from torchcram.memory.semantic import SEMANTIC_MEMORIES, SemanticRead
from torchcram.memory.surprise import SurpriseTrace, Trace
from torchcram.memory.working import build_working_memory
from torchcram.ops.collective import step_mean, world_mean
from torchcram.ops.rms_norm import RMSNorm
from torchcram.ops.routing import priced, straight_through_mix
from torchcram.strict import require_choice, require_positive
from torchcram.types import (
    BlockOutput,
    KeyValueState,
    Lesson,
    MemoryState,
    MixingCost,
    Route,
    RoutingControl,
    RoutingDecision,
)


class CRAMBlock(nn.Module):
    """Three memories and a router, then a feed-forward network; pre-norm, residual.

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
        quality: how the quality of a semantic answer is known: ``"predicted"`` without a read, or, as in the
            paper, ``"observed"``: every token that asks semantic memory reads, too, and counts as read
            whatever its route.
        quality_variance: sigma^2 of the quality ``exp(-error / sigma^2)``.
        detach: keep the consolidation loss away from the trunk. Slots learn without gradients and never touch
            it; this is for the low rank.
        mlp_ratio: width of the feed-forward network over ``d_model``.
    """

    routed: ClassVar[bool] = True

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
        quality: str = "predicted",
        quality_variance: float = 0.5,
        detach: bool = True,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        require_positive(quality_variance=quality_variance)
        kind = SEMANTIC_MEMORIES[require_choice("semantic memory", semantic, SEMANTIC_MEMORIES)]
        if surprise and semantic != "slots":
            raise ValueError(
                f"the surprise trace flags slots, but semantic is {semantic!r}: set surprise to "
                "false, or semantic to 'slots'"
            )
        if router == "gumbel3" and semantic == "none":
            raise ValueError(
                "router 'gumbel3' chooses between three memories, but semantic is 'none': set "
                "router to 'need_familiarity'"
            )
        self.consolidates = semantic != "none"
        predicts = require_choice("quality", quality, ("predicted", "observed")) == "predicted"
        self.quality_variance, self.detach = quality_variance, detach
        self.working_norm, self.memory_norm = RMSNorm(d_model), RMSNorm(d_model)
        self.working = build_working_memory(working, d_model, state_size=state_size)
        self.episodic = EpisodicMemory(d_model, heads=heads, window=window, marks=surprise)
        self.semantic = kind(d_model, slots=slots, rank=rank)
        self.familiarity = (
            FamiliarityEstimator(d_model, evidence_size=self.semantic.evidence_size)
            if self.consolidates and predicts
            else None
        )
        options = {
            name: value
            for name, value in (("threshold", threshold), ("noise_scale", router_noise))
            if value is not None
        }
        self.router = ROUTERS[require_choice("router", router, ROUTERS)](d_model, **options)
        self.surprise = SurpriseTrace(d_model, slots=slots) if surprise else None
        self.mlp = FeedForward(d_model, ratio=mlp_ratio)

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState(
            working=self.working.init_state(batch_size),
            episodic=self.episodic.init_state(batch_size),
            surprise=None if self.surprise is None else self.surprise.init_state(batch_size),
        )

    def fast_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that decide and consolidate: they want a faster learning rate than the
        trunk.
        """
        parts = (self.router, self.familiarity, self.semantic, self.surprise)
        return [parameter for part in parts if part is not None for parameter in part.parameters()]

    def forward(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        gap: Float[Tensor, "batch time"],
        state: MemoryState | None = None,
        *,
        control: RoutingControl,
        noise: Float[Tensor, "batch time 4"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
        horizon: Float[Tensor, "batch time"] | None = None,
        token: Float[Tensor, "batch time d_model"] | None = None,
    ) -> BlockOutput:
        """Mix along time. See :class:`torchcram.types.SequenceMixer`."""
        state = self.init_state(len(gap)) if state is None else state
        assert state.working is not None and state.episodic is not None

        update, working_state = self.working(
            self.working_norm(hidden_states), gap, state.working, horizon, mask
        )
        x = hidden_states + update
        h = self.memory_norm(x)

        trace = self._follow_bindings(h, state, mask, control)
        memory, time = self.episodic.write(
            h, gap, state.episodic, surprise=None if trace is None else trace.surprise, mask=mask
        )

        seen = self._seen_by_router(h, hidden_states if token is None else token)
        need = self.router.need(seen, None if noise is None else noise[..., 0])
        asked = self._asked(need, control, noise, mask)
        early = self._reads_to_decide(asked, control, mask)
        read = partial(self.episodic.read, h, time, memory, before=state.episodic, dense=control.dense)
        retrieval = None if early is None else read(early)
        recalled = expected = address = None
        familiarity, known = torch.zeros_like(need), torch.zeros_like(x)
        if control.dense or torch.is_grad_enabled() or bool(asked.any()):
            at = _taken(h, asked, control)
            recalled = self.semantic(self._shielded(at), address := self._address(at))
            expected = self._expected(
                at, recalled, None if retrieval is None else _taken(retrieval, asked, control)
            )
            familiarity = self._familiarity(expected, recalled, trace, asked, need, control)
            known = _placed(recalled.value.to(x.dtype), asked, known, control)

        decision = self._within_budget(
            self._decide(seen, need, familiarity, asked, early, control, noise, mask), state, control, mask
        )
        if retrieval is None:
            retrieval = read(decision.computed)
        x = x + self._mix(retrieval, known, decision, asked, learns=control.price is not None)
        x = x + self.mlp(x)

        losses: dict[str, Tensor] = {}
        signals: dict[str, Tensor] = {}
        lesson = None
        if (
            control.consolidate
            and self.consolidates
            and recalled is not None
            and expected is not None
            and address is not None
        ):
            losses, signals, lesson = self._consolidate(
                address, retrieval, recalled, expected, need, asked, decision
            )
            if self.surprise is not None:
                losses["surprise"] = self._learn_bindings(h, time, memory, decision.read, mask)
        if trace is not None:
            signals["surprise"] = trace.surprise
        if control.reads == "routed":
            signals["need"] = need.detach() if mask is None else need.detach().masked_fill(~mask, torch.nan)
        losses["price"] = step_mean(
            priced(decision.probabilities[..., Route.EPISODIC], steady=control.steady), mask
        )
        new_state = MemoryState(
            working=working_state,
            episodic=self.episodic.forget(memory),
            surprise=None if trace is None else trace.state,
            spent=self._spent(state, decision, control, mask),
        )
        return BlockOutput(
            hidden_states=x, state=new_state, decision=decision, losses=losses, signals=signals, lesson=lesson
        )

    def cost(self) -> MixingCost:
        """Return what mixing along time costs: see :class:`torchcram.accounting.MixingCost`."""
        d_model = self.mlp.norm.weight.numel()
        router, state, estimator = (_size(part) for part in (self.router, self.semantic, self.familiarity))
        flags = 0 if self.surprise is None else self.surprise.slots
        binds, align = (0, 0) if self.surprise is None else (d_model, d_model**2)
        return replace(
            attention_cost(d_model),
            flops_token=2.0 * (router + binds),
            bytes_token=4.0 * (router + binds),
            flops_asked=2.0 * (state + estimator + flags),
            bytes_asked=4.0 * (state + estimator + flags),
            flops_written=2.0 * (state + align + d_model**2 + 2 * flags),
            bytes_written=4.0 * (state + align + d_model**2 + 2 * flags),
        )

    def after_step(self, output: BlockOutput) -> None:
        """Let semantic memory take in the lesson of a training step. Call once after each optimizer step."""
        if output.lesson is not None:
            self.semantic.learn(output.lesson)

    def _seen_by_router(self, h: Tensor, token: Tensor) -> Tensor:
        """What the router decides from: the token's state."""
        del token
        return h

    @torch.no_grad()
    def _address(self, hidden_states: Tensor) -> Tensor:
        """Where semantic memory is asked: what asks there does not shape the address."""
        return self.episodic.address(hidden_states)

    def _shielded(self, hidden_states: Tensor) -> Tensor:
        return hidden_states.detach() if self.detach else hidden_states

    def _follow_bindings(
        self, h: Tensor, state: MemoryState, mask: Tensor | None, control: RoutingControl
    ) -> Trace | None:
        """Ask semantic memory about every binding as it is written, and flag the slots that it
        contradicts.
        """
        if self.surprise is None:
            return None
        assert state.surprise is not None
        with torch.no_grad():
            written = self.surprise.writes(h, mask)
            if not control.dense and not bool(written.any()):
                return self.surprise.stay(state.surprise, written)
            bindings = _taken(h, written, control)
            read, value = (
                self.semantic(bindings, self.surprise.align(bindings)),
                self.episodic.written_value(bindings),
            )
            return self.surprise.follow(state.surprise, written, read, value, dense=control.dense)

    def _asked(
        self, need: Tensor, control: RoutingControl, noise: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Which tokens semantic memory is asked about: those in need, and those that exploration draws."""
        if not self.consolidates or (control.reads == "all" and not control.consolidate):
            return torch.zeros_like(need, dtype=torch.bool)
        asked = (need > 0.5) | _drawn(need, control, noise)
        return asked if mask is None else asked & mask

    def _reads_to_decide(self, asked: Tensor, control: RoutingControl, mask: Tensor | None) -> Tensor | None:
        """Which tokens read before they are routed, where quality is observed: those that ask, or all if
        all are to read. None where it is not.
        """
        if not self.consolidates or self.familiarity is not None or control.reads == "none":
            return None
        if control.reads == "routed":
            return asked
        return torch.ones_like(asked) if mask is None else mask

    def _expected(self, h: Tensor, recalled: SemanticRead, found: Tensor | None) -> Tensor:
        """The logit of the quality of each answer: predicted, or observed against what the token found;
        without either, nothing is familiar.
        """
        if self.familiarity is not None:
            return self.familiarity(h, recalled)
        if found is None:
            return torch.full_like(h[:, 0], -torch.inf)
        return torch.logit(
            consolidation_quality(relative_error(recalled.value, found), variance=self.quality_variance),
            eps=1e-6,
        )

    @staticmethod
    def _familiarity(
        expected: Tensor,
        recalled: SemanticRead,
        trace: Trace | None,
        asked: Tensor,
        need: Tensor,
        control: RoutingControl,
    ) -> Tensor:
        """Quality of the asked tokens (from its logits), after the veto of the surprise trace; zero for
        the others.
        """
        predicted = torch.sigmoid(expected).to(need.dtype)
        if trace is not None:
            predicted = predicted * (1 - trace.veto(recalled, asked).to(need.dtype))
        return _placed(predicted, asked, torch.zeros_like(need), control)

    def _decide(
        self,
        seen: Tensor,
        need: Tensor,
        familiarity: Tensor,
        asked: Tensor,
        early: Tensor | None,
        control: RoutingControl,
        noise: Tensor | None,
        mask: Tensor | None,
    ) -> RoutingDecision:
        uniform = None if noise is None else noise[..., :3]
        shift = control.threshold_shift if self.consolidates else 0.0
        probabilities, route = self.router.decide(seen, need, familiarity, uniform, shift=shift)
        if control.reads == "all":
            route = torch.full_like(route, int(Route.EPISODIC))
        if control.reads == "none":
            route = torch.where(route == int(Route.EPISODIC), int(Route.WORKING), route)
        if mask is not None:
            route = torch.where(mask, route, int(Route.WORKING))
        # What exploration draws is not in need: its route is known without its quality.
        observed = None if early is None else early & (need > 0.5)
        read = route == int(Route.EPISODIC) if observed is None else (route == int(Route.EPISODIC)) | observed
        explored = torch.zeros_like(read)
        weight = read.to(need.dtype)
        if control.reads == "routed" and control.exploration > 0:
            explored = _drawn(need, control, noise) & ~read
            explored = explored if mask is None else explored & mask
            weight = weight + explored.to(need.dtype) / exploration_rate(need, least=control.exploration)
        return RoutingDecision(
            route=route,
            probabilities=probabilities,
            familiarity=familiarity.detach(),
            explored=explored,
            weight=weight,
            asked=asked,
            observed=observed,
        )

    @staticmethod
    def _within_budget(
        decision: RoutingDecision, state: MemoryState, control: RoutingControl, mask: Tensor | None
    ) -> RoutingDecision:
        """Send the reads that the budget does not pay for the likelier of the two other ways."""
        if control.budget is None:
            return decision
        denied = decision.used & ~affordable(control.budget, decision.used, mask, _count(state, decision))
        free = decision.probabilities[..., Route.SEMANTIC] > decision.probabilities[..., Route.WORKING]
        free = torch.where(free & decision.asked, int(Route.SEMANTIC), int(Route.WORKING))
        return replace(
            decision, route=torch.where(denied, free, decision.route), weight=decision.weight * ~denied
        )

    @staticmethod
    def _spent(
        state: MemoryState, decision: RoutingDecision, control: RoutingControl, mask: Tensor | None
    ) -> Tensor | None:
        """The count of tokens and reads, where somebody counts."""
        counts = control.budget is not None or state.spent is not None
        return counted(_count(state, decision), decision.read, mask) if counts else None

    def _mix(
        self, retrieval: Tensor, known: Tensor, decision: RoutingDecision, asked: Tensor, *, learns: bool
    ) -> Tensor:
        """What the chosen memory adds to each token; from it the router learns what a read is worth."""
        if not torch.is_grad_enabled():
            return (
                retrieval * decision.used[..., None]
                + known * (decision.route == int(Route.SEMANTIC))[..., None]
            )
        for_retrieval, for_answer = self.router.credit(decision.probabilities.to(retrieval.dtype))
        weight = decision.weight.to(retrieval.dtype) * learns
        told = weight * (asked & decision.computed)
        return straight_through_mix(retrieval, decision.used, for_retrieval, weight) + straight_through_mix(
            known, decision.route == int(Route.SEMANTIC), for_answer, told
        )

    def _consolidate(
        self,
        address: Tensor,
        retrieval: Tensor,
        recalled: SemanticRead,
        expected: Tensor,
        need: Tensor,
        asked: Tensor,
        decision: RoutingDecision,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Lesson]:
        """Teach semantic memory and familiarity by the retrievals that were computed."""
        learned = asked & decision.computed
        target, known = retrieval[learned], learned[asked]
        error = relative_error(recalled.value[known], target)
        quality = consolidation_quality(error, variance=self.quality_variance)
        weight = decision.weight[learned] * need.detach()[learned]
        losses = {"consolidation": world_mean((weight * error).sum(), weight.sum())}
        if self.familiarity is not None:
            doubt = binary_cross_entropy_with_logits(
                expected[known], quality.to(expected.dtype), reduction="none"
            )
            losses["familiarity"] = world_mean((weight * doubt).sum(), weight.sum())
        lesson = Lesson(
            address=address,
            read=known,
            target=retrieval[asked].detach(),
            quality=_spread(quality, known),
        )
        blank = torch.full_like(need, float("nan"))
        signals = {
            "error": blank.masked_scatter(learned, error.detach().to(need.dtype)),
            "quality": blank.masked_scatter(learned, quality.to(need.dtype)),
        }
        return losses, signals, lesson

    def _learn_bindings(
        self, h: Tensor, time: Tensor, memory: KeyValueState, read: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Let the surprise trace learn from the entry that each read weighted most, if it lies within
        these steps.
        """
        assert self.surprise is not None
        row, step, source = self.episodic.top_entry(h, time, memory, read)
        asked_for = torch.zeros_like(read)
        asked_for[row, source] = True
        return self.surprise.loss(h, asked_for, h[row, source], self._address(h[row, step]), mask)


def _count(state: MemoryState, decision: RoutingDecision) -> Tensor:
    return decision.route.new_zeros(len(decision.route), 2) if state.spent is None else state.spent


def _taken(
    values: Float[Tensor, "batch time d_model"], chosen: Bool[Tensor, "batch time"], control: RoutingControl
) -> Float[Tensor, "tokens d_model"]:
    """The chosen tokens, or all of them where no shape may depend on the choice."""
    return values.flatten(0, 1) if control.dense else values[chosen]


def _placed(
    values: Tensor, chosen: Bool[Tensor, "batch time"], blank: Tensor, control: RoutingControl
) -> Tensor:
    """Put values of :func:`_taken` tokens where they belong, into ``blank``."""
    where = chosen.view(*chosen.shape, *[1] * (blank.dim() - 2))
    return (
        torch.where(where, values.unflatten(0, chosen.shape), blank)
        if control.dense
        else blank.masked_scatter(where, values)
    )


def _drawn(need: Tensor, control: RoutingControl, noise: Tensor | None) -> Tensor:
    """Which tokens exploration draws."""
    if noise is None or control.exploration == 0:
        return torch.zeros_like(need, dtype=torch.bool)
    return noise[..., 3] < exploration_rate(need, least=control.exploration)


def _size(part: nn.Module | None) -> int:
    return 0 if part is None else sum(parameter.numel() for parameter in part.parameters())


def _spread(values: Tensor, chosen: Tensor) -> Tensor:
    return torch.zeros(chosen.shape, dtype=values.dtype, device=values.device).masked_scatter(chosen, values)
