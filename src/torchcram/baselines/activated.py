"""An episodic memory of activated tokens: they alone are written, and they alone read.

Everything else leaves it as it is.

This is how SeqBoat and Mixture-of-Depths save: the buffer is compressed, so a read scans the keys of
activated tokens only. Within it everything is as in :class:`torchcram.memory.episodic.EpisodicMemory`: a null
entry, strictly earlier entries, rotation by time stamp; the window counts activated tokens. Legend:
``tokens`` = the activated ones of all sequences, row by row.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchcram.memory.episodic import EpisodicMemory
from torchcram.ops.routed_attention import routed_attention
from torchcram.ops.routed_attention.packing import pack, visible_entries
from torchcram.types import KeyValueState


class ActivatedMemory(EpisodicMemory):
    """``y_t = sum_s softmax_s(q_t . k_s) v_s`` over the tokens ``s < t`` that were activated, for activated
    tokens ``t`` alone.

    Use :meth:`attend`, which writes and reads at once. Arguments: see the base class.
    """

    def init_state(self, batch_size: int) -> KeyValueState:
        """Return a buffer that holds the null entry only, at time zero."""
        state = super().init_state(batch_size)
        return replace(state, entries=torch.ones(batch_size, dtype=torch.long, device=state.time.device))

    def attend(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        gap: Float[Tensor, "batch time"],
        state: KeyValueState,
        activated: Bool[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "tokens d_model"], KeyValueState]:
        """Write the activated tokens, and let each read those that were activated before it.

        Padding takes no time.

        Returns:
            What each activated token found, heads side by side, not yet projected by ``out``; and the buffer
            afterwards.
        """
        assert state.entries is not None
        time = state.time[:, None] + (gap if mask is None else gap * mask).cumsum(1)
        position, real = pack(activated)
        h = hidden_states.gather(1, position[..., None].expand(-1, -1, hidden_states.shape[-1]))
        moment = time.gather(1, position)
        memory = self._appended(state, *self._keys_and_values(h, moment), real, time[:, -1])
        # Nothing but the null entry in any sequence: the one number lets attention take its dense path.
        offset = 1 if state.keys.shape[2] == 1 else state.entries
        attended = routed_attention(
            self._queries(self.address(h), moment),
            memory.keys,
            memory.values,
            real,
            offset=offset,
            window=self.window,
        )
        return attended.transpose(1, 2).flatten(2)[real], self.forget(memory)

    def forget(self, memory: KeyValueState) -> KeyValueState:
        """Drop the entries that no later token can read; the null entry stays."""
        assert memory.entries is not None
        if self.window is None:
            return memory
        return _compressed(
            memory, visible_entries(memory.entries[:, None], memory.keys.shape[2], self.window)[:, 0]
        )

    @staticmethod
    def _appended(
        state: KeyValueState, keys: Tensor, values: Tensor, real: Tensor, time: Tensor
    ) -> KeyValueState:
        assert state.entries is not None
        filled = torch.arange(state.keys.shape[2], device=real.device) < state.entries[:, None]
        joined = replace(
            state,
            keys=torch.cat([state.keys, keys], 2),
            values=torch.cat([state.values, values], 2),
            time=time,
        )
        return _compressed(joined, torch.cat([filled, real], 1))


def _compressed(memory: KeyValueState, chosen: Bool[Tensor, "batch length"]) -> KeyValueState:
    """Return the chosen entries of each sequence side by side, filled up with zeros to the longest."""
    order, real = pack(chosen)

    def kept(entries: Tensor) -> Tensor:
        index = order[:, None, :, None].expand(-1, entries.shape[1], -1, entries.shape[3])
        return entries.gather(2, index).masked_fill(~real[:, None, :, None], 0.0)

    return replace(memory, keys=kept(memory.keys), values=kept(memory.values), entries=chosen.sum(1))
