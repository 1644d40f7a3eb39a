"""Episodic memory (paper, section 3): softmax attention over a buffer of keys and values. Its output for a token is the *retrieval*.

Every token is written; only reads cost, and only reads are skipped. A token reads what was written before it, and a learned null entry (so that
"nothing found" has an answer). Queries and keys are normalised and live in one *address space*: both projections start equal, so
what was written under a key is found under the same key from the first step on. Rotary positions turn by time stamp, on half
of each head. Deviation: normalisation, null entry and equal start are ours.
Legend: ``heads`` x ``d_head`` = ``d_model``; ``length`` entries including the null one; times in the task's unit.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad, rms_norm

from torchcram.ops.routed_attention import routed_attention
from torchcram.ops.routed_attention.packing import pack, visible_entries
from torchcram.strict import require_positive
from torchcram.types import KeyValueState


class EpisodicMemory(nn.Module):
    """Write, read, forget beyond the window.

    Args:
        d_model: width, a multiple of ``heads``.
        heads: number of heads.
        window: how many of the latest entries stay readable; None for all.
        rotary_base: longest rotary period is about ``2 pi rotary_base`` units of time.
        marks: whether entries that surprise can be marked.
    """

    def __init__(self, d_model: int, *, heads: int = 4, window: int | None = None, rotary_base: float = 10_000.0, marks: bool = False):
        super().__init__()
        require_positive(heads=heads)
        if d_model % (4 * heads):
            fitting = 4 * heads * max(1, round(d_model / (4 * heads)))
            raise ValueError(f"d_model {d_model} is not a multiple of 4 x heads = {4 * heads} (half of each head turns in pairs): use {fitting}")
        if window is not None and window < 1:
            raise ValueError(f"window {window} must be at least 1, or None for an unbounded buffer")
        self.heads, self.d_head, self.window = heads, d_model // heads, window
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.log_sharpness = nn.Parameter(torch.full((heads,), 2.7))
        # The half that does not turn: nothing found is the same at any time.
        self.null_key = nn.Parameter(torch.zeros(heads, self.d_head // 2))
        self.null_value = nn.Parameter(torch.zeros(heads, self.d_head))
        self.mark = nn.Parameter(torch.zeros(heads, self.d_head)) if marks else None
        self.rotary_base = rotary_base
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)

    def init_state(self, batch_size: int) -> KeyValueState:
        """Return a buffer that holds the null entry only, at time zero."""

        def entry(parameter: Tensor) -> Tensor:
            return parameter[None, :, None].expand(batch_size, -1, -1, -1)

        return KeyValueState(keys=entry(pad(self.null_key, (self.d_head // 2, 0))), values=entry(self.null_value), time=self.null_key.new_zeros(batch_size))

    def address(self, hidden_states: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        """Return where a token looks: its normalised queries before rotation, heads side by side. Semantic memory is asked here, too."""
        return rms_norm(self._split(self.query, hidden_states), (self.d_head,)).transpose(1, 2).flatten(2)

    def write(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        gap: Float[Tensor, "batch time"],
        state: KeyValueState,
        *,
        surprise: Float[Tensor, "batch time"] | None = None,
    ) -> tuple[KeyValueState, Float[Tensor, "batch time"]]:
        """Append every token; entries that surprise are marked in their keys. Returns the buffer and the tokens' time stamps."""
        time = state.time[:, None] + gap.cumsum(1)
        keys, values = self._keys_and_values(hidden_states, time, surprise)
        memory = KeyValueState(keys=torch.cat([state.keys, keys], 2), values=torch.cat([state.values, values], 2), time=time[:, -1])
        return memory, time

    def read(
        self,
        address: Float[Tensor, "batch time d_model"],
        time: Float[Tensor, "batch time"],
        memory: KeyValueState,
        selected: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the retrieval of the selected tokens, zero for the others. ``memory`` already holds these tokens' own entries."""
        offset = memory.keys.shape[2] - address.shape[1]
        found = routed_attention(self._queries(address, time), memory.keys, memory.values, selected, offset=offset, window=self.window)
        return self.out(found.transpose(1, 2).flatten(2))

    @torch.no_grad()
    def top_entry(
        self,
        address: Float[Tensor, "batch time d_model"],
        time: Float[Tensor, "batch time"],
        memory: KeyValueState,
        selected: Bool[Tensor, "batch time"],
    ) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Return row, step and source step of the selected reads that give one entry, written within these steps, most of their weight."""
        offset = memory.keys.shape[2] - address.shape[1]
        position, real = pack(selected)
        index = position[:, None, :, None].expand(-1, self.heads, -1, self.d_head)
        scores = self._queries(address, time).gather(2, index) @ memory.keys.mT
        visible = visible_entries(offset + position, memory.keys.shape[2], self.window)
        weight, entry = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1).mean(1).max(-1)
        clear = real & (weight > 0.5) & (entry >= offset)
        row = torch.arange(len(position), device=position.device)[:, None].expand_as(position)
        return row[clear], position[clear], entry[clear] - offset

    def _keys_and_values(self, hidden_states: Tensor, time: Tensor, surprise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        keys = rms_norm(self._split(self.key, hidden_states), (self.d_head,))
        if surprise is not None:
            assert self.mark is not None
            keys = keys + surprise[:, None, :, None] * self.mark[:, None]
        return self._rotate(keys, time), self._split(self.value, hidden_states)

    def _queries(self, address: Tensor, time: Tensor) -> Tensor:
        scale = (self.log_sharpness.exp() / self.d_head)[:, None, None]
        return self._rotate(self._heads(address), time) * scale.to(address.dtype)

    def written_value(self, hidden_states: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return what a token's entry would give to a query that reads it alone."""
        return self.out(self.value(hidden_states))

    def forget(self, memory: KeyValueState) -> KeyValueState:
        """Drop the entries that no later token can read; the null entry stays."""
        window = self.window
        if window is None or memory.keys.shape[2] <= window + 1:
            return memory

        def kept(entries: Tensor) -> Tensor:
            return torch.cat([entries[:, :, :1], entries[:, :, -window:]], 2)

        return replace(memory, keys=kept(memory.keys), values=kept(memory.values))

    def _split(self, projection: nn.Linear, hidden_states: Tensor) -> Tensor:
        return self._heads(projection(hidden_states))

    def _heads(self, wide: Tensor) -> Tensor:
        return wide.unflatten(-1, (self.heads, self.d_head)).transpose(1, 2)

    def _rotate(self, vectors: Float[Tensor, "batch heads time d_head"], time: Float[Tensor, "batch time"]) -> Float[Tensor, "batch heads time d_head"]:
        """Turn the first half of each head by time stamp (rotary embedding, Su et al. 2021); angles in fp32."""
        pairs = self.d_head // 4
        speed = self.rotary_base ** -(torch.arange(pairs, device=time.device, dtype=time.dtype) / pairs)
        angle = (time[:, None, :, None] * speed).float() if time.dtype != torch.float64 else time[:, None, :, None] * speed
        cos, sin = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
        first, second, rest = vectors.split([pairs, pairs, self.d_head - 2 * pairs], -1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], -1)
