"""The surprise trace: which familiar keys have been bound, in this sequence, to something other than what
semantic memory would say.

A token-wise familiarity estimator says "known" even where the context has re-bound a familiar key. So
semantic memory is asked when a binding is
*written*: if it recognises the key but disagrees with the value, the slots that answered are flagged; if it
agrees, they are cleared. A query that reaches flagged slots is vetoed: it reads. The trace has one number in
[0, 1] per slot: fixed size, no keys, no values. Deviation: not in the paper. What counts as a binding, and
under which address it will be asked for, is learned on reads, from the entry they weight most.
Legend: ``slots`` of the semantic memory; ``pairs`` = a read and the entry that it weighted most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from torchcram.memory.consolidation import relative_error
from torchcram.memory.semantic import SemanticAnswer
from torchcram.ops.collective import world_mean
from torchcram.ops.routed_attention.packing import pack
from torchcram.ops.scan import scan


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What surprise trace knows along a stretch of steps.

    Attributes:
        before: the flags that each step finds, from strictly earlier writes.
        index: for each step, which row of ``before`` it finds.
        state: the flags after the last step.
        surprise: per step, how much its own binding contradicts semantic memory; 0 for steps that bind
            nothing familiar.
    """

    before: Float[Tensor, "batch writes slots"]
    index: Int[Tensor, "batch time"]
    state: Float[Tensor, "batch slots"]
    surprise: Float[Tensor, "batch time"]

    def veto(self, answer: SemanticAnswer, asked: Bool[Tensor, "batch time"]) -> Float[Tensor, " tokens"]:
        """Return, for the asked tokens, how far the slots that answer are flagged, in [0, 1].

        Where semantic memory was asked about every token, asked or not, the answer is for all of them.
        """
        assert answer.weights is not None
        if len(answer.weights) == asked.numel():
            every = torch.arange(len(asked), device=asked.device)[:, None]
            return (answer.weights.detach() * self.before[every, self.index].flatten(0, 1)).sum(-1)
        row = asked.nonzero()[:, 0]
        return (answer.weights.detach() * self.before[row, self.index[asked]]).sum(-1)


class SurpriseTrace(nn.Module):
    """``flag_m <- (1 - w_m) flag_m + w_m (1 - exp(-err / 0.5))`` at each binding; the veto of a query is
    ``sum_m w_m flag_m``.

    ``w_m`` is the share of slot m in an answer; at a binding, times how well its address is recognised.

    Args:
        d_model: width.
        slots: slots of the semantic memory.
        positive_weight: weight of true bindings in the classifier's loss: a binding that nobody asks for
            looks like no binding.
    """

    def __init__(self, d_model: int, *, slots: int, positive_weight: float = 10.0):
        super().__init__()
        self.slots, self.positive_weight = slots, positive_weight
        self.binds = nn.Linear(d_model, 1)
        self.align = nn.Linear(d_model, d_model)
        nn.init.zeros_(self.binds.weight)
        nn.init.constant_(self.binds.bias, -3.0)

    def init_state(self, batch_size: int) -> Float[Tensor, "batch slots"]:
        """Return a trace without flags."""
        return self.binds.weight.new_zeros(batch_size, self.slots)

    @torch.no_grad()
    def writes(
        self, hidden_states: Float[Tensor, "batch time d_model"], mask: Bool[Tensor, "batch time"] | None
    ) -> Bool[Tensor, "batch time"]:
        """Return which steps bind something that a later query may ask for."""
        binds = self.binds(hidden_states)[..., 0] > 0
        return binds if mask is None else binds & mask

    @torch.no_grad()
    def follow(
        self,
        state: Float[Tensor, "batch slots"],
        written: Bool[Tensor, "batch time"],
        answer: SemanticAnswer,
        value: Float[Tensor, "tokens d_model"],
        *,
        dense: bool = False,
    ) -> Trace:
        """Update the flags along the steps.

        Args:
            state: flags before the first step.
            written: steps that bind, ``tokens`` in all.
            answer: what semantic memory says at the addresses of the bindings.
            value: what the bindings' own entries would give to a reader.
            dense: ``answer`` and ``value`` are those of every step, binding or not.
        """
        assert answer.weights is not None and answer.recognition is not None
        if dense:
            return self._follow_all(state, written, answer, value)
        if len(value) == 0:
            return self.stay(state, written)
        contradiction = 1 - torch.exp(-relative_error(answer.value, value) / 0.5)
        share = answer.recognition[:, None] * answer.weights
        order, real = pack(written)
        decay, inputs = state.new_ones(*order.shape, self.slots), state.new_zeros(*order.shape, self.slots)
        decay[real] = (1 - share).to(state.dtype)
        inputs[real] = (share * contradiction[:, None]).to(state.dtype)
        before = torch.cat([state[:, None], scan(decay, inputs, state)], 1)
        surprise = torch.zeros(written.shape, dtype=state.dtype, device=state.device)
        surprise[written] = (answer.recognition * contradiction).to(state.dtype)
        return Trace(
            before=before, index=written.cumsum(1) - written.long(), state=before[:, -1], surprise=surprise
        )

    @staticmethod
    def stay(state: Float[Tensor, "batch slots"], written: Bool[Tensor, "batch time"]) -> Trace:
        """Return the trace along steps that bind nothing: the flags stay as they are."""
        nothing = torch.zeros(written.shape, dtype=state.dtype, device=state.device)
        return Trace(
            before=state[:, None],
            index=torch.zeros_like(written, dtype=torch.long),
            state=state,
            surprise=nothing,
        )

    @staticmethod
    def _follow_all(state: Tensor, written: Tensor, answer: SemanticAnswer, value: Tensor) -> Trace:
        """The same, as if every step bound something: those that do not leave the flags as they are."""
        assert answer.weights is not None and answer.recognition is not None
        contradiction = 1 - torch.exp(-relative_error(answer.value, value) / 0.5)
        weight = written.flatten()[:, None] * answer.recognition[:, None] * answer.weights
        inputs = (weight * contradiction[:, None]).unflatten(0, written.shape).to(state.dtype)
        flags = scan((1 - weight).unflatten(0, written.shape).to(state.dtype), inputs, state)
        index = torch.arange(written.shape[1], device=written.device).expand(written.shape)
        surprise = (answer.recognition * contradiction).unflatten(0, written.shape).to(state.dtype) * written
        return Trace(
            before=torch.cat([state[:, None], flags], 1), index=index, state=flags[:, -1], surprise=surprise
        )

    def loss(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        asked_for: Bool[Tensor, "batch time"],
        entry: Float[Tensor, "pairs d_model"],
        address: Float[Tensor, "pairs d_model"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, ""]:
        """Learn what binds, and where it will be asked for.

        Args:
            hidden_states: all steps.
            asked_for: steps whose entry some read weighted most.
            entry: hidden states of those entries, one for each read.
            address: the address of each read.
            mask: False on padding, which nobody can ask for.
        """
        logits = self.binds(hidden_states.detach())[..., 0]
        if mask is not None:
            logits, asked_for = logits[mask], asked_for[mask]
        weight = logits.new_tensor(self.positive_weight)
        doubt = binary_cross_entropy_with_logits(
            logits, asked_for.to(logits.dtype), pos_weight=weight, reduction="none"
        )
        apart = (self.align(entry.detach()) - address.detach()).square().mean(-1)
        count = doubt.new_tensor(float(doubt.numel()))
        return world_mean(doubt.sum(), count) + world_mean(apart.sum(), apart.new_tensor(float(len(apart))))
