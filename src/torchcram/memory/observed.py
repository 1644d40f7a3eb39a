"""CRAM as the paper has it: the quality of a semantic answer is *observed*, against the read that it would
save.

    q = exp(-|f_sem(h) - r_E|^2 / (sigma^2 |r_E|^2))        for every token that asks

So every token in need reads, and counts as read whatever its route. This is what
:class:`torchcram.memory.block.CRAMBlock` predicts instead.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.memory.block import CRAMBlock
from torchcram.memory.consolidation import consolidation_quality, relative_error
from torchcram.memory.recall import Read, Recall, Recollection
from torchcram.memory.semantic import SemanticAnswer
from torchcram.memory.surprise import Trace
from torchcram.ops.selection import Selection
from torchcram.types import Step


class ObservedRecall(Recall):
    """Reads what it is asked about, and compares. Arguments: see :class:`torchcram.memory.recall.Recall`."""

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
        """Read for every token that asks, or for all of them if all are to read; then ask semantic memory."""
        asked = self.asked(need, step)
        early = self._early(asked, step)
        blank = Recollection(
            asked=asked,
            value=torch.zeros_like(hidden_states),
            familiarity=torch.zeros_like(need),
            # What exploration draws is not in need: its route is known without its quality.
            observed=None if early is None else early & (need > 0.5),
            retrieval=None if early is None else read(early),
        )
        return self.answered(blank, hidden_states, trace, selection) if selection.some(asked) else blank

    def quality(
        self, looking: Tensor, answer: SemanticAnswer, blank: Recollection, selection: Selection
    ) -> Float[Tensor, " tokens"]:
        """Return the observed quality of each answer, in logits; where nothing may be read, none is good."""
        if blank.retrieval is None:
            return torch.full_like(looking[:, 0], -torch.inf)
        error = relative_error(answer.value, selection.take(blank.retrieval, blank.asked))
        return torch.logit(consolidation_quality(error, variance=self.variance), eps=1e-6)

    def _early(self, asked: Bool[Tensor, "batch time"], step: Step) -> Bool[Tensor, "batch time"] | None:
        """Return which tokens read before they are routed; None where nothing may be read."""
        if step.control.reads == "none" or not self.consolidates:
            return None
        return asked if step.control.reads == "routed" else step.real


class ObservedQualityBlock(CRAMBlock):
    """CRAM's block, decided by an observed quality. Arguments: see the base class."""

    recalls: ClassVar[type[Recall]] = ObservedRecall
    predicts: ClassVar[bool] = False
