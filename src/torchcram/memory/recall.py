"""Recall: what can be known of a token without a read. Semantic memory, familiarity and surprise together.

    value = f_sem(address(h))     quality = estimator(h, value, evidence)     familiar = quality (1 - veto)

Semantic memory is asked about tokens in need, and about those that exploration draws; every answer comes with
its expected quality, and the surprise trace vetoes what the context has overridden.
Legend: ``tokens`` = those that are asked about, row by row (all where shapes must not depend on data).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from torchcram.memory.consolidation import consolidation_quality, relative_error
from torchcram.memory.episodic import EpisodicMemory
from torchcram.memory.exploration import drawn_to_explore
from torchcram.memory.familiarity import FamiliarityEstimator
from torchcram.memory.semantic import SemanticAnswer, SemanticMemory, SilentMemory
from torchcram.memory.surprise import SurpriseTrace, Trace
from torchcram.ops.collective import world_mean
from torchcram.ops.selection import Selection
from torchcram.types import KeyValueState, Lesson, RoutingDecision, Step

# From the tokens that are to be read to their retrievals.
Read = Callable[[Bool[Tensor, "batch time"]], Float[Tensor, "batch time d_model"]]


@dataclass(frozen=True, kw_only=True)
class Recollection:
    """What is known of the tokens without a read.

    Attributes:
        asked: tokens about which semantic memory was asked.
        value: its answers; zero where not asked.
        familiarity: their expected quality in [0, 1], after the veto of the surprise trace; zero where not
            asked.
        address: where each asked token looked; None if nothing was computed, as ``answer`` and ``logits``.
        answer: what semantic memory said about each of them.
        logits: the expected quality of each answer, in logits, before the veto.
        observed: tokens that had to be read to know their quality (the paper's); None for no token.
        retrieval: what those reads returned.
    """

    asked: Bool[Tensor, "batch time"]
    value: Float[Tensor, "batch time d_model"]
    familiarity: Float[Tensor, "batch time"]
    address: Float[Tensor, "tokens d_model"] | None = None
    answer: SemanticAnswer | None = None
    logits: Float[Tensor, " tokens"] | None = None
    observed: Bool[Tensor, "batch time"] | None = None
    retrieval: Float[Tensor, "batch time d_model"] | None = None


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What a training pass teaches: losses by name, per-token signals, and the lesson of semantic memory."""

    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    signals: dict[str, Float[Tensor, "batch time"]] = field(default_factory=dict)
    lesson: Lesson | None = None


class Recall:
    """Asks the parts of a block that answer without a read. It holds no parameters of its own.

    Args:
        episodic: for addresses, and for what a binding's entry would give to a reader.
        semantic: what answers.
        familiarity: predicts the quality of an answer; None for none: nothing is familiar.
        surprise: the trace of overridden bindings, or None.
        detach: keep the gradients of the answers away from the trunk.
        variance: sigma^2 of the quality ``exp(-error / sigma^2)``.
    """

    def __init__(
        self,
        *,
        episodic: EpisodicMemory,
        semantic: SemanticMemory,
        familiarity: FamiliarityEstimator | None,
        surprise: SurpriseTrace | None,
        detach: bool,
        variance: float,
    ):
        self.episodic, self.semantic, self.familiarity = episodic, semantic, familiarity
        self.surprise, self.detach, self.variance = surprise, detach, variance

    @property
    def consolidates(self) -> bool:
        """Whether there is a semantic memory."""
        return not isinstance(self.semantic, SilentMemory)

    def __call__(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        trace: Trace | None,
        step: Step,
        *,
        read: Read,
        selection: Selection,
    ) -> Recollection:
        """Ask about the tokens in need. Nothing is read, unless quality can only be observed."""
        del read
        asked = self.asked(need, step)
        blank = Recollection(
            asked=asked, value=torch.zeros_like(hidden_states), familiarity=torch.zeros_like(need)
        )
        if not selection.some(asked):
            return blank
        return self.answered(blank, hidden_states, trace, selection)

    def asked(self, need: Float[Tensor, "batch time"], step: Step) -> Bool[Tensor, "batch time"]:
        """Return which tokens semantic memory is asked about: those in need or drawn by exploration."""
        control = step.control
        if not self.consolidates or (control.reads == "all" and not control.consolidates):
            return torch.zeros_like(need, dtype=torch.bool)
        return step.masked((need > 0.5) | drawn_to_explore(need, step))

    def answered(
        self, blank: Recollection, hidden_states: Tensor, trace: Trace | None, selection: Selection
    ) -> Recollection:
        """Return the answers to what was asked."""
        looking = selection.take(hidden_states, blank.asked)
        address = self.address(looking)
        answer = self.semantic(looking.detach() if self.detach else looking, address)
        logits = self.quality(looking, answer, blank, selection)
        expected = torch.sigmoid(logits).to(blank.familiarity.dtype)
        if trace is not None:
            expected = expected * (1 - trace.veto(answer, blank.asked).to(expected.dtype))
        return Recollection(
            asked=blank.asked,
            value=selection.put(answer.value.to(hidden_states.dtype), blank.asked, blank.value),
            familiarity=selection.put(expected, blank.asked, blank.familiarity),
            address=address,
            answer=answer,
            logits=logits,
            observed=blank.observed,
            retrieval=blank.retrieval,
        )

    def quality(
        self, looking: Tensor, answer: SemanticAnswer, blank: Recollection, selection: Selection
    ) -> Float[Tensor, " tokens"]:
        """Return the expected quality of each answer, in logits: predicted without a read."""
        del blank, selection
        if self.familiarity is None:
            return torch.full_like(looking[:, 0], -torch.inf)
        return self.familiarity(looking, answer)

    @torch.no_grad()
    def address(self, hidden_states: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return where semantic memory is asked. What asks there does not shape the address."""
        return self.episodic.address(hidden_states)

    @torch.no_grad()
    def follow(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        flags: Float[Tensor, "batch slots"] | None,
        step: Step,
        selection: Selection,
    ) -> Trace | None:
        """Ask semantic memory about each binding as it is written, and flag the slots that it contradicts."""
        if self.surprise is None:
            return None
        assert flags is not None
        written = self.surprise.writes(hidden_states, step.mask)
        if not selection.dense and not bool(written.any()):
            return self.surprise.stay(flags, written)
        bindings = selection.take(hidden_states, written)
        said = self.semantic(bindings, self.surprise.align(bindings))
        value = self.episodic.written_value(bindings)
        return self.surprise.follow(flags, written, said, value, dense=selection.dense)

    def teach(
        self,
        known: Recollection,
        retrieval: Float[Tensor, "batch time d_model"],
        decision: RoutingDecision,
        need: Float[Tensor, "batch time"],
    ) -> Taught:
        """Compare the answers with the retrievals that were computed (paper, section 4)."""
        if known.answer is None or known.logits is None or known.address is None or not self.consolidates:
            return Taught()
        learned = known.asked & decision.computed
        target, read = retrieval[learned], learned[known.asked]
        error = relative_error(known.answer.value[read], target)
        quality = consolidation_quality(error, variance=self.variance)
        weight = decision.weight[learned] * need.detach()[learned]
        losses = {"consolidation": world_mean((weight * error).sum(), weight.sum())}
        if self.familiarity is not None:
            doubt = binary_cross_entropy_with_logits(
                known.logits[read], quality.to(known.logits.dtype), reduction="none"
            )
            losses["familiarity"] = world_mean((weight * doubt).sum(), weight.sum())
        lesson = Lesson(
            address=known.address,
            read=read,
            target=retrieval[known.asked].detach(),
            quality=torch.zeros_like(read, dtype=quality.dtype).masked_scatter(read, quality),
        )
        blank = torch.full_like(need, torch.nan)
        seen = {"error": error.detach(), "quality": quality}
        signals = {name: blank.masked_scatter(learned, value.to(need.dtype)) for name, value in seen.items()}
        return Taught(losses=losses, signals=signals, lesson=lesson)

    def teach_bindings(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        time: Float[Tensor, "batch time"],
        memory: KeyValueState,
        read: Bool[Tensor, "batch time"],
        step: Step,
    ) -> dict[str, Float[Tensor, ""]]:
        """Let the surprise trace learn from the entry that each read weighted most, if within these steps."""
        if self.surprise is None:
            return {}
        row, reader, source = self.episodic.top_entry(hidden_states, time, memory, read)
        asked_for = torch.zeros_like(read)
        asked_for[row, source] = True
        entry, address = hidden_states[row, source], self.address(hidden_states[row, reader])
        return {"surprise": self.surprise.loss(hidden_states, asked_for, entry, address, step.mask)}
