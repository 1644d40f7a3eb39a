"""The cache of a retrofitted layer, in the form that ``generate`` handles.

Entries stand in the order of each sequence's own tokens, padding left out, in a buffer with room to spare: a
token is written in place, and a read takes a view of one row. A layer that never reads keeps its sinks and
its window alone, however long the text. Keys keep their absolute positions: nothing is rotated again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, CacheLayerMixin

from torchcram.pretrained.retrofit.alignment import Alignment
from torchcram.pretrained.retrofit.entries import (
    Entries,
    Kept,
    fresh_entries,
    no_kept,
    no_sums,
    ordered,
    taken,
)
from torchcram.pretrained.retrofit.reach import Reach

# Tokens for which a fresh buffer has room.
FIRST_ROOM = 64


class RetrofitCacheLayer(CacheLayerMixin):
    """What one layer carries from token to token.

    Args:
        reach: what is near.
        bounded: whether the layer never reads, and so keeps near entries alone.

    Attributes:
        columns: tokens so far, padding included: what Transformers counts.
        count: tokens of each sequence so far, padding left out.
        spent: tokens and reads of each sequence so far.
        sums: of the keys and values that have left the window.
        scores: how notable each entry is; None where nothing is kept.
        kept: keys, values and scores of the entries that stay at hand behind the window.
    """

    is_sliding = False
    is_croppable = False

    def __init__(self, *, reach: Reach, bounded: bool):
        super().__init__()
        self.reach, self.bounded, self.columns = reach, bounded, 0
        self.count: Tensor | None = None
        self.spent: Tensor | None = None
        self.sums: Tensor | None = None
        self.scores: Tensor | None = None
        self.kept: Kept | None = None
        # Whether all sequences have as many tokens as columns: then tokens are written side by side.
        self.even = True

    def write(self, key: Tensor, value: Tensor, alignment: Alignment, score: Tensor | None = None) -> Entries:
        """Take in the tokens of a pass, and return what its queries can look at.

        Args:
            key: ``[batch, kv_heads, time, d_head]``, real tokens at the left.
            value: alike.
            alignment: of the pass.
            score: ``[batch, kv_heads, time]``, how notable the tokens are; None where nothing is kept.

        Raises:
            ValueError: if the cache holds another number of sequences, or gradients are to flow through a
                cache that is not empty.
        """
        fresh = self.columns == 0
        if key.requires_grad and not fresh:
            raise ValueError("gradients do not flow through a filled cache: train with use_cache=False")
        entries = self._written(key.detach(), value.detach(), alignment, score)
        # The first pass looks at its own tokens, through which gradients flow.
        return fresh_entries(key, value, score, kept=self.reach.kept) if fresh else entries

    def leave(self, sums: Tensor, kept: Kept | None) -> None:
        """Take over what is known of the entries that left the window, behind a pass."""
        self.sums = sums.detach()
        if kept is not None:
            self.kept = Kept(key=kept.key.detach(), value=kept.value.detach(), score=kept.score)

    def _written(self, key: Tensor, value: Tensor, alignment: Alignment, score: Tensor | None) -> Entries:
        if not self.is_initialized:
            self._begin(key)
        assert self.keys is not None and self.values is not None
        assert self.count is not None and self.sums is not None
        if len(self.count) != len(key):
            raise ValueError(
                f"the cache holds {len(self.count)} sequences, the batch {len(key)}: use "
                "batch_repeat_interleave or batch_select_indices, or start with a new cache"
            )
        self.even = self.even and alignment.order is None
        past, shift = self.count, self._shift(self.count)
        self._make_room(key.shape[2])
        ranks = past[:, None] + torch.arange(key.shape[2], device=key.device)
        index = torch.where(ranks < self.reach.sinks, ranks, ranks - shift[:, None])
        self._put(self.keys, key, index)
        self._put(self.values, value, index)
        if self.scores is not None:
            assert score is not None, "what is kept needs scores"
            self._put(self.scores, ordered(score, ranks)[..., None], index)
        self.columns += key.shape[2]
        self.count = past + alignment.count
        held = self.keys.shape[2] if self.bounded else self.columns
        entries = Entries(
            key=self.keys[:, :, :held],
            value=self.values[:, :, :held],
            past=past,
            shift=shift,
            sums=self.sums,
            score=None if self.scores is None else self.scores[:, :, :held, 0],
            kept=self.kept,
        )
        if self.bounded:
            self._forget_remote(shift)
        return entries

    def _begin(self, like: Tensor) -> None:
        batch, heads, _, size = like.shape
        room = self._near if self.bounded else FIRST_ROOM
        self.keys = like.new_zeros(batch, heads, room, size)
        self.values = torch.zeros_like(self.keys)
        self.count = torch.zeros(batch, dtype=torch.long, device=like.device)
        self.spent = torch.zeros(batch, 2, dtype=torch.long, device=like.device)
        self.sums = no_sums(like)
        if self.reach.kept:
            self.kept = no_kept(like, self.reach.kept)
            self.scores = self.kept.score.new_zeros(batch, heads, room, 1)
        self.is_initialized = True

    @property
    def _near(self) -> int:
        return self.reach.sinks + self.reach.window

    def _shift(self, count: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Ranks that a bounded layer has dropped after so many tokens."""
        return (count - self._near).clamp(min=0) if self.bounded else torch.zeros_like(count)

    def _make_room(self, steps: int) -> None:
        assert self.keys is not None and self.values is not None
        needed = self._near + steps if self.bounded else self.columns + steps
        if needed > self.keys.shape[2]:
            # A bounded buffer is cut down again after the pass; the other one doubles, so that copies are
            # few.
            room = needed if self.bounded else max(needed + FIRST_ROOM, 2 * self.keys.shape[2])
            more = (0, 0, 0, room - self.keys.shape[2])
            self._buffers(lambda buffer: pad(buffer, more))

    def _buffers(self, change: Callable[[Tensor], Tensor]) -> None:
        """Change everything that stands entry by entry."""
        assert self.keys is not None and self.values is not None
        self.keys, self.values = change(self.keys), change(self.values)
        self.scores = None if self.scores is None else change(self.scores)

    def _put(self, buffer: Tensor, states: Tensor, index: Int[Tensor, "batch time"]) -> None:
        if self.even and not self.bounded:
            buffer[:, :, self.columns : self.columns + states.shape[2]] = states
        else:
            buffer.scatter_(2, index[:, None, :, None].expand_as(states), states)

    def _forget_remote(self, shift: Int[Tensor, " batch"]) -> None:
        assert self.keys is not None and self.values is not None and self.count is not None
        sinks = torch.arange(self.reach.sinks, device=shift.device).expand(len(shift), -1)
        window = torch.arange(self.reach.sinks, self._near, device=shift.device)
        recent = window + (self._shift(self.count) - shift)[:, None]
        kept = torch.cat((sinks, recent), 1).clamp(max=self.keys.shape[2] - 1)
        self._buffers(lambda buffer: taken(buffer, kept))

    @property
    def bytes(self) -> int:
        """Memory that keys and values take, room to spare left out; what is kept stands there twice where
        everything is there.
        """
        if self.keys is None:
            return 0
        held = (self._near if self.bounded else self.columns) + self.reach.kept
        return 2 * self.keys[:, :, 0].numel() * held * self.keys.element_size()

    @property
    def read_rate(self) -> Float[Tensor, " batch"]:
        """Share of each sequence's tokens that read in this layer so far."""
        assert self.spent is not None, "a cache layer counts from its first token"
        return self.spent[:, 1] / self.spent[:, 0].clamp_min(1)

    def get_seq_length(self) -> int:
        """Return how many tokens came so far, padding included: what positions are counted by."""
        return self.columns

    def get_max_length(self) -> int:
        """Return -1: any number of tokens fits."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and the offset of a mask over all tokens."""
        return self.columns + query_length, 0

    def reset(self) -> None:
        """Forget everything."""
        self.keys = self.values = self.count = self.spent = self.sums = self.scores = self.kept = None
        self.columns, self.even, self.is_initialized = 0, True, False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row go on from the row that a beam search chose for it."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._change(lambda tensor: tensor.index_select(0, indices.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self._change(lambda tensor: tensor.repeat_interleave(repeats, 0))

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse to remove tokens: a bounded layer has already dropped what would become near again.

        Raises:
            ValueError: unless nothing is to be removed.
        """
        if tokens_to_remove != 0:
            raise ValueError(
                f"cannot remove {tokens_to_remove} tokens from the cache of a retrofitted model: keep a copy "
                "(copy.deepcopy(cache)) from before them; assisted decoding is not possible"
            )

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> NoReturn:
        """Not used: see :meth:`write`."""
        raise ValueError("a retrofitted cache layer is filled by a retrofitted model: pass it to no other")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> NoReturn:
        """Not used: see :meth:`write`."""
        self.lazy_initialization(key_states, value_states)

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.is_initialized:
            for name in ("count", "spent", "sums"):
                setattr(self, name, change(getattr(self, name)))
            self._buffers(change)
            if (kept := self.kept) is not None:
                self.kept = Kept(key=change(kept.key), value=change(kept.value), score=change(kept.score))


def cache_layer(cache: Cache, layer: int, *, reach: Reach, bounded: bool) -> RetrofitCacheLayer:
    """Return a layer of the cache that the caller brought, made fit for a retrofitted layer while it is
    empty.

    Raises:
        ValueError: if another model filled it.
    """
    while len(cache.layers) <= layer:
        cache.layers.append(RetrofitCacheLayer(reach=reach, bounded=bounded))
    there: Any = cache.layers[layer]
    if not isinstance(there, RetrofitCacheLayer):
        if there.is_initialized and there.get_seq_length() > 0:
            raise ValueError(
                f"layer {layer} of the cache was filled by an untouched model: start with a new cache"
            )
        there = cache.layers[layer] = RetrofitCacheLayer(reach=reach, bounded=bounded)
    if there.reach != reach or there.bounded != bounded:
        raise ValueError(
            f"layer {layer} of the cache was filled under other settings ({there.reach}): "
            "start with a new cache"
        )
    return there
