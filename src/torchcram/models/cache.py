"""The cache of a CRAM language model: what every layer carries from token to token, in the form that
``generate`` handles.

One cache layer holds one :class:`torchcram.types.MemoryState`: recurrent state, key-value memory with its
null entry, surprise trace, time, and the count of tokens and reads. ``DynamicCache(config=model.config)`` and
``StaticCache(config=model.config, max_cache_len=...)`` are made of these layers once this module is imported.
Sequences may differ in length: each row counts its own entries. Keys and values lie in buffers with room to
spare, so a token is written in place, and a read takes a view: a stock layer copies the whole memory for
every token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, CacheLayerMixin, StaticLayer

from torchcram.types import KeyValueState, MemoryState, SequenceMixer

# Entries for which a fresh cache has room.
FIRST_ROOM = 64


class CRAMCacheLayer(CacheLayerMixin):
    """What one layer carries; it grows with the sequence.

    Attributes:
        state: the layer's memories, or None before the first token.
        columns: tokens so far, padding included.
        owner: signature of the configuration that filled it.
        last: ``[rows, width]`` what the layer said of each sequence's last token; None but in a model's last
            layer. A prompt that the cache holds to its end is continued from it.
    """

    _layer_type = "cram"
    is_sliding = False
    max_cache_len: int | None = None

    def __init__(self) -> None:
        # Not super(): a static layer of Transformers, next in line below, wants to allocate.
        CacheLayerMixin.__init__(self)
        self.state: MemoryState | None = None
        self.columns = 0
        self.owner: str | None = None
        self.last: Tensor | None = None

    @property
    def room(self) -> int:
        """Entries for which a cache that begins makes room."""
        return FIRST_ROOM if self.max_cache_len is None else self.max_cache_len

    def advance(self, state: MemoryState, columns: int, *, owner: str) -> None:
        """Take over the state after so many more tokens."""
        self.state, self.columns = state, self.columns + columns
        self.owner, self.is_initialized = owner, True

    @property
    def batch_size(self) -> int:
        """Number of sequences, -1 before the first token."""
        return -1 if self.state is None or self.state.spent is None else len(self.state.spent)

    @property
    def read_rate(self) -> Float[Tensor, " batch"]:
        """Share of each sequence's tokens that read in this layer so far."""
        assert self.state is not None and self.state.spent is not None
        return self.state.spent[:, 1] / self.state.spent[:, 0].clamp_min(1)

    def get_seq_length(self) -> int:
        """Return how many tokens came so far, padding included."""
        return self.columns

    def get_max_length(self) -> int:
        """Return how many tokens fit, -1 for any number."""
        return -1 if self.max_cache_len is None else self.max_cache_len

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and the offset of a mask over all tokens."""
        return self.columns + query_length, 0

    def reset(self) -> None:
        """Forget everything."""
        self.state, self.columns, self.last, self.is_initialized = None, 0, None, False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row go on from the row that a beam search chose for it."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._change(lambda tensor: tensor.index_select(0, indices.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self._change(lambda tensor: tensor.repeat_interleave(repeats, 0))

    def offload(self) -> None:
        """Move the state to the CPU."""
        self._change(lambda tensor: tensor.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        """A model finds its state where it left it, and says so where it does not."""

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse to remove tokens: what a recurrent state has taken in cannot be taken out.

        Raises:
            ValueError: unless nothing is to be removed.
        """
        if tokens_to_remove != 0:
            raise ValueError(
                f"cannot remove {tokens_to_remove} tokens: a recurrent state has no way back. Keep a copy "
                "(copy.deepcopy(cache)) from before them, or reset() and run the shorter sequence again"
            )

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> NoReturn:
        """Not used: see :func:`first_state`."""
        raise ValueError(
            "a CRAM cache layer is filled by a CRAM model, not by keys and values alone: pass the "
            "cache to a CRAMForCausalLM"
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> NoReturn:
        """Not used: see :meth:`advance`."""
        self.lazy_initialization(key_states, value_states)

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        self.state, self.last = _mapped(self.state, change), _mapped(self.last, change)


# Transformers tells static layers by their base class; nothing of it is used.
class CRAMStaticCacheLayer(CRAMCacheLayer, StaticLayer):  # type: ignore[misc, override]
    """The same with all of its room from the start.

    Args:
        max_cache_len: tokens that fit, padding included.
    """

    _layer_type = "cram"
    is_compileable = False

    def __init__(self, max_cache_len: int):
        CRAMCacheLayer.__init__(self)
        self.max_cache_len = max_cache_len


@dataclass(frozen=True, kw_only=True)
class ReadMeter:
    """How much each sequence of a cache has read so far.

    Attributes:
        tokens: tokens of each sequence, padding apart.
        reads: how many of them read, in each layer.
    """

    tokens: Int[Tensor, " batch"]
    reads: Int[Tensor, "batch layers"]

    @property
    def rates(self) -> Float[Tensor, "batch layers"]:
        """Share of the tokens that read."""
        return self.reads / self.tokens.clamp_min(1)[:, None]


def read_meter(cache: Cache) -> ReadMeter:
    """Return the running count of a cache.

    Raises:
        ValueError: if it is no cache of a CRAM model, or nothing has passed through it.
    """
    spent = [
        layer.state.spent
        for layer in cache.layers
        if isinstance(layer, CRAMCacheLayer) and layer.state is not None and layer.state.spent is not None
    ]
    if not spent:
        raise ValueError(f"{cache!r} has counted nothing: pass a cache that a CRAM model has filled")
    return ReadMeter(tokens=spent[0][:, 0], reads=torch.stack([count[:, 1] for count in spent], 1))


def check_cache(
    cache: Any,
    *,
    owner: str,
    layers: int,
    batch_size: int,
    columns: int,
    dtype: torch.dtype,
) -> list[CRAMCacheLayer]:
    """Return the layers of a cache, if a model can go on with it.

    Args:
        cache: what the caller passed.
        owner: signature of the model's configuration.
        layers: its depth.
        batch_size: sequences to come.
        columns: tokens of each to come.
        dtype: of the model.

    Raises:
        ValueError: naming what does not fit, and what would.
    """
    cram_layers = [layer for layer in getattr(cache, "layers", []) if isinstance(layer, CRAMCacheLayer)]
    if len(cram_layers) != layers or len(cache.layers) != layers:
        raise ValueError(
            f"past_key_values is {cache!r} with {len(cram_layers)} CRAM layers, the model has {layers}: "
            "pass DynamicCache(config=model.config)"
        )
    for layer in cram_layers:
        if layer.max_cache_len is not None and layer.columns + columns > layer.max_cache_len:
            raise ValueError(
                f"{layer.columns + columns} tokens do not fit a static cache of max_cache_len "
                f"{layer.max_cache_len}"
            )
        if layer.state is not None:
            _check_state(layer, layer.state, owner, batch_size, dtype)
    return cram_layers


def _check_state(
    layer: CRAMCacheLayer,
    state: MemoryState,
    owner: str,
    batch_size: int,
    dtype: torch.dtype,
) -> None:
    if layer.owner != owner:
        raise ValueError(
            f"the cache was filled by another configuration, {layer.owner}, than the model's, "
            f"{owner}: start with a new cache"
        )
    if layer.batch_size != batch_size:
        raise ValueError(
            f"the cache holds {layer.batch_size} sequences, the batch {batch_size}: use "
            "batch_repeat_interleave or batch_select_indices"
        )
    if state.episodic is not None and state.episodic.keys.dtype != dtype:
        raise ValueError(
            f"the cache is in {state.episodic.keys.dtype}, the model in {dtype}: start with a new cache"
        )


def first_state(mixer: SequenceMixer, rows: int, *, room: int) -> MemoryState:
    """Return the state that a cache carries into the first token of so many sequences: a mixer's own, with
    room for entries, and a count.
    """
    born = mixer.init_state(rows)
    memory = None if born.episodic is None else _with_room(born.episodic, room)
    device = next(cast(torch.nn.Module, mixer).parameters()).device
    spent = torch.zeros(rows, 2, dtype=torch.long, device=device)
    return replace(born, episodic=memory, spent=spent)


def _with_room(memory: KeyValueState, room: int) -> KeyValueState:
    """Count the entries, make room behind them, and keep time in full precision."""
    entries = (
        torch.full((len(memory.time),), memory.keys.shape[2], dtype=torch.long, device=memory.time.device)
        if memory.entries is None
        else memory.entries
    )
    time = memory.time.to(torch.promote_types(memory.time.dtype, torch.float32))
    if memory.entries is not None:
        return replace(memory, time=time)
    return replace(
        memory,
        keys=pad(memory.keys, (0, 0, 0, room)),
        values=pad(memory.values, (0, 0, 0, room)),
        time=time,
        entries=entries,
    )


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of a state, however deep."""
    if isinstance(state, Tensor):
        return change(state)
    if state is None:
        return None
    return replace(
        state, **{field.name: _mapped(getattr(state, field.name), change) for field in fields(state)}
    )
