"""Episodic memory (paper, section 3): softmax attention over a buffer of keys and values.

Its output for a token is the *retrieval*.

Every token is written; only reads cost, and only reads are skipped. A token reads what was written before it,
and a learned null entry (so that "nothing found" has an answer). Queries and keys are normalised and live in
one *address space*: both projections start equal, so what was written under a key is found under the same key
from the first step on. Rotary positions turn by time stamp, on half of each head. Deviation: normalisation,
null entry and equal start are ours.
Legend: ``heads`` x ``d_head`` = ``d_model``; ``length`` entries including the null one; times in the task's
unit.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from torchcram.ops.rms_norm import rms_norm
from torchcram.ops.routed_attention import dense_attention, routed_attention
from torchcram.ops.routed_attention.packing import pack, visible_entries
from torchcram.strict import require_positive
from torchcram.types import KeyValueState

# Row and step of some tokens.
Places = tuple[Int[Tensor, " tokens"], ...]
# Queries of a sequence whose heaviest entry is looked for at once: their scores stay in the processor's
# cache.
TOGETHER = 16


class EpisodicMemory(nn.Module):
    """``r_E(h_t) = out(softmax(s q(h_t) [k_null, k(h_1), ..., k(h_t-1)]) [v_null, v(h_1), ..., v(h_t-1)])``.

    It writes every token, reads where it is asked to, and forgets beyond the window.

    Args:
        d_model: width, a multiple of ``heads``.
        heads: number of heads.
        window: how many of the latest entries stay readable; None for all.
        rotary_base: longest rotary period is about ``2 pi rotary_base`` units of time.
        marks: whether entries that surprise can be marked.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        window: int | None = None,
        rotary_base: float = 10_000.0,
        marks: bool = False,
    ):
        super().__init__()
        require_positive(heads=heads)
        if d_model % (4 * heads):
            fitting = 4 * heads * max(1, round(d_model / (4 * heads)))
            raise ValueError(
                f"d_model {d_model} is not a multiple of 4 x heads = {4 * heads} (half of each "
                f"head turns in pairs): use {fitting}"
            )
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

        return KeyValueState(
            keys=entry(pad(self.null_key, (self.d_head // 2, 0))),
            values=entry(self.null_value),
            time=self.null_key.new_zeros(batch_size),
        )

    def address(self, hidden_states: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return where a token looks: its normalised queries before rotation, heads side by side.

        Semantic memory is asked here, too.
        """
        return rms_norm(self.query(hidden_states).unflatten(-1, (self.heads, self.d_head))).flatten(-2)

    def write(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        gap: Float[Tensor, "batch time"],
        state: KeyValueState,
        *,
        surprise: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[KeyValueState, Float[Tensor, "batch time"]]:
        """Append every token; entries that surprise are marked in their keys.

        Returns the buffer and the tokens' time stamps.

        Padding takes no time. It is appended, too, unless ``state`` counts its entries: then it is left out,
        and without gradients the new entries go into the room that is there, in place.
        """
        time = state.time[:, None] + (gap if mask is None else gap * mask).cumsum(1)
        keys, values = self._keys_and_values(hidden_states, time, surprise)
        if state.entries is not None:
            return self._filled(
                state,
                keys,
                values,
                time[:, -1],
                torch.ones_like(gap, dtype=torch.bool) if mask is None else mask,
            ), time
        memory = KeyValueState(
            keys=torch.cat([state.keys, keys], 2),
            values=torch.cat([state.values, values], 2),
            time=time[:, -1],
        )
        return memory, time

    def read(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        time: Float[Tensor, "batch time"],
        memory: KeyValueState,
        selected: Bool[Tensor, "batch time"],
        *,
        before: KeyValueState | None = None,
        dense: bool = False,
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the retrieval of the selected tokens, zero for the others.

        ``memory`` already holds these tokens' own entries.

        Args:
            hidden_states: the tokens.
            time: their time stamps.
            memory: what is to be read.
            selected: tokens that read.
            before: the buffer before these tokens, needed where entries are counted.
            dense: compute all reads, and drop those that are not selected.
        """
        if not dense and not torch.is_grad_enabled() and not bool(selected.any()):
            return torch.zeros_like(hidden_states)
        offset: int | Tensor = memory.keys.shape[2] - hidden_states.shape[1]
        if memory.entries is not None:
            assert before is not None and before.entries is not None
            offset = before.entries
        # Where most read, or the one step of a sequence, whole tensors are projected: picking the readers
        # would cost more.
        few = not dense and selected.shape[1] > 1 and 2 * int(selected.sum()) < selected.numel()
        readers = selected.nonzero(as_tuple=True) if few else None
        attend = dense_attention if dense else routed_attention
        attended = attend(
            self._queries_of(hidden_states, time, readers),
            memory.keys,
            memory.values,
            selected,
            offset=offset,
            window=self.window,
        )
        attended = attended.transpose(1, 2).flatten(2)
        if readers is None:
            return self.out(attended)
        return _put(self.out(attended[readers]), readers, selected.shape)

    @torch.no_grad()
    def top_entry(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        time: Float[Tensor, "batch time"],
        memory: KeyValueState,
        selected: Bool[Tensor, "batch time"],
    ) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Return row, step and source step of the selected reads that give one entry, written within these
        steps, most of their weight.
        """
        offset = memory.keys.shape[2] - hidden_states.shape[1]
        position, real = pack(selected)
        looking = hidden_states.gather(1, position[..., None].expand(-1, -1, hidden_states.shape[-1]))
        queries = self._queries(self.address(looking), time.gather(1, position))
        parts = [
            self._weightiest(*part, memory, offset)
            for part in zip(queries.split(TOGETHER, 2), position.split(TOGETHER, 1), strict=True)
        ]
        weight, entry = (torch.cat(column, 1) for column in zip(*parts, strict=True))
        clear = real & (weight > 0.5) & (entry >= offset)
        row = torch.arange(len(position), device=position.device)[:, None].expand_as(position)
        return row[clear], position[clear], entry[clear] - offset

    def _weightiest(
        self, queries: Tensor, position: Tensor, memory: KeyValueState, offset: int
    ) -> tuple[Tensor, Tensor]:
        """Return the greatest weight that each query gives to an entry, mean over heads, and the entry:
        none that comes later is looked at.
        """
        length = offset + (int(position.max()) if position.numel() else 0)
        visible = visible_entries(offset + position, length, self.window)
        scores = (queries @ memory.keys[:, :, :length].mT).masked_fill_(~visible[:, None], -torch.inf)
        weight, entry = scores.softmax(-1).mean(1).max(-1)
        return weight, entry

    def _keys_and_values(
        self, hidden_states: Tensor, time: Tensor, surprise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        keys = rms_norm(self._split(self.key, hidden_states))
        if surprise is not None:
            assert self.mark is not None
            keys = keys + surprise[:, None, :, None] * self.mark[:, None]
        return self._rotate(keys, time), self._split(self.value, hidden_states)

    def _queries(self, address: Tensor, time: Tensor) -> Tensor:
        scale = (self.log_sharpness.exp() / self.d_head)[:, None, None]
        return self._rotate(self._heads(address), time) * scale.to(address.dtype)

    def _queries_of(
        self, hidden_states: Tensor, time: Tensor, readers: Places | None
    ) -> Float[Tensor, "batch heads time d_head"]:
        """The queries of all tokens, or of the readers alone: those of the others are not computed, and
        stay zero.
        """
        if readers is None:
            return self._queries(self.address(hidden_states), time)
        queries = self._queries(self.address(hidden_states[readers])[None], time[readers][None])
        return self._heads(_put(queries.transpose(1, 2).flatten(2)[0], readers, time.shape))

    def written_value(
        self, hidden_states: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch d_model"]:
        """Return what a token's entry would give to a query that reads it alone."""
        return self.out(self.value(hidden_states))

    @staticmethod
    def _filled(
        state: KeyValueState, keys: Tensor, values: Tensor, time: Tensor, real: Bool[Tensor, "batch time"]
    ) -> KeyValueState:
        """Write the real steps behind each sequence's entries."""
        assert state.entries is not None
        row, step = real.nonzero(as_tuple=True)
        place = state.entries[row] + real.cumsum(1)[row, step] - 1
        entries = state.entries + real.sum(1)
        needed = int(entries.max()) if len(entries) else 0

        def put(buffer: Tensor, new: Tensor) -> Tensor:
            if needed > buffer.shape[2]:
                buffer = pad(buffer, (0, 0, 0, max(needed, 2 * buffer.shape[2]) - buffer.shape[2]))
            elif (torch.is_grad_enabled() and (buffer.requires_grad or new.requires_grad)) or (
                buffer.is_inference() and not torch.is_inference_mode_enabled()
            ):
                buffer = buffer.clone()
            buffer[row, :, place] = new[row, :, step].to(buffer.dtype)
            return buffer

        return replace(
            state, keys=put(state.keys, keys), values=put(state.values, values), time=time, entries=entries
        )

    def forget(self, memory: KeyValueState) -> KeyValueState:
        """Drop the entries that no later token can read; the null entry stays."""
        window = self.window
        if window is None or memory.keys.shape[2] <= window + 1:
            return memory
        if memory.entries is not None:
            return self._moved_up(memory, memory.entries, window)

        def kept(entries: Tensor) -> Tensor:
            return torch.cat([entries[:, :, :1], entries[:, :, -window:]], 2)

        return replace(memory, keys=kept(memory.keys), values=kept(memory.values))

    @staticmethod
    def _moved_up(memory: KeyValueState, entries: Int[Tensor, " batch"], window: int) -> KeyValueState:
        """Move the last entries of each sequence up to its null entry.

        Done rarely enough to cost each step next to nothing.
        """
        if int(entries.max()) <= 2 * (window + 1):
            return memory
        latest = (entries - window).clamp_min(1)[:, None] + torch.arange(window, device=entries.device)
        index = (
            pad(latest, (1, 0))
            .clamp_max(memory.keys.shape[2] - 1)[:, None, :, None]
            .expand(-1, memory.keys.shape[1], -1, memory.keys.shape[3])
        )

        def kept(buffer: Tensor) -> Tensor:
            return pad(buffer.gather(2, index), (0, 0, 0, window + 2))

        return replace(
            memory, keys=kept(memory.keys), values=kept(memory.values), entries=entries.clamp_max(window + 1)
        )

    def _split(self, projection: nn.Linear, hidden_states: Tensor) -> Tensor:
        return self._heads(projection(hidden_states))

    def _heads(self, wide: Tensor) -> Tensor:
        return wide.unflatten(-1, (self.heads, self.d_head)).transpose(1, 2)

    def _rotate(
        self, vectors: Float[Tensor, "batch heads time d_head"], time: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch heads time d_head"]:
        """Turn the first half of each head by time stamp (rotary embedding, Su et al. 2021); angles in
        fp32.
        """
        pairs = self.d_head // 4
        speed = self.rotary_base ** -(torch.arange(pairs, device=time.device, dtype=time.dtype) / pairs)
        angle = (
            (time[:, None, :, None] * speed).float()
            if time.dtype != torch.float64
            else time[:, None, :, None] * speed
        )
        cos, sin = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
        first, second, rest = vectors.split([pairs, pairs, self.d_head - 2 * pairs], -1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], -1)


def _put(
    rows: Float[Tensor, "tokens d_model"], places: Places, shape: torch.Size
) -> Float[Tensor, "batch time d_model"]:
    """Put the rows of some tokens where they belong, and zeros elsewhere."""
    return rows.new_zeros(*shape, rows.shape[-1]).index_put(places, rows)
