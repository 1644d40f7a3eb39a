"""How fast a retrofitted model decodes and how large its cache is, beside the untouched model on the same
machine, by turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from torchcram.bench.timing import Timing, take_turns
from torchcram.pretrained.retrofit.block import RetrofittedBlock, own_class
from torchcram.pretrained.retrofit.cache import RetrofitCacheLayer
from torchcram.pretrained.retrofit.install import attention_blocks, memories
from torchcram.pretrained.retrofit.judge import Counted

# Tokens of a turn, and turns.
STEPS, ROUNDS = 8, 5


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of decoding behind a context.

    Attributes:
        context: tokens in the cache.
        batch: sequences.
        reads: share of token x layer that read while decoding.
        tokens_per_second: of all sequences together.
        untouched_tokens_per_second: alike.
        ratio: median over the turns of untouched over own time.
        spread: interquartile range of the ratio.
        cache_bytes: keys and values behind the context.
        untouched_cache_bytes: alike.
        prefill_ratio: how many times faster the context itself is read.
    """

    context: int
    batch: int
    reads: float
    tokens_per_second: float
    untouched_tokens_per_second: float
    ratio: float
    spread: float
    cache_bytes: int
    untouched_cache_bytes: int
    prefill_ratio: float


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """The model computes with its own attention for a while; its memories stay where they are."""
    blocks: list[Any] = [
        block for block in attention_blocks(model).values() if isinstance(block, RetrofittedBlock)
    ]
    classes = [type(block) for block in blocks]
    try:
        for block in blocks:
            block.__class__ = own_class(block)
        yield
    finally:
        for block, own in zip(blocks, classes, strict=True):
            block.__class__ = own


@torch.no_grad()
def measure_speed(
    model: Any,
    ids: Int[Tensor, "batch tokens"],
    *,
    steps: int = STEPS,
    rounds: int = ROUNDS,
) -> Speed:
    """Decode behind a context, with and without memories.

    Args:
        model: retrofitted, at rest; it reads as it is set.
        ids: the context.
        steps: tokens that are decoded in each turn, greedily.
        rounds: turns.
    """

    def prefill() -> Any:
        return model.base_model(input_ids=ids, use_cache=True).past_key_values

    def plain_prefill() -> Any:
        with untouched(model):
            return prefill()

    began = take_turns(prefill, plain_prefill, rounds=2, warm_up=0)
    ours, theirs = prefill(), plain_prefill()
    sizes = cache_bytes(ours), cache_bytes(theirs)
    counted = Counted(memories(model))
    with counted:
        decode(model, ours, ids[:, -1:], steps)

    def plain_decode() -> None:
        with untouched(model):
            decode(model, theirs, ids[:, -1:], steps)

    timing: Timing = take_turns(lambda: decode(model, ours, ids[:, -1:], steps), plain_decode, rounds=rounds)
    made = 1e3 * steps * len(ids)
    return Speed(
        context=ids.shape[1],
        batch=len(ids),
        reads=float(counted.reads[0] / counted.reads[1]),
        tokens_per_second=made / timing.ours_ms,
        untouched_tokens_per_second=made / timing.peer_ms,
        ratio=timing.ratio,
        spread=timing.spread,
        cache_bytes=sizes[0],
        untouched_cache_bytes=sizes[1],
        prefill_ratio=began.ratio,
    )


def decode(model: Any, cache: Any, last: Int[Tensor, "batch 1"], steps: int) -> Int[Tensor, "batch 1"]:
    """Decode greedily, and return the last token."""
    for _ in range(steps):
        logits = model(input_ids=last, past_key_values=cache, use_cache=True).logits
        last = logits[:, -1:].argmax(-1)
    return last


def cache_bytes(cache: Any) -> int:
    """Return the memory that keys and values take, room to spare left out."""
    total = 0
    for layer in cache.layers:
        if isinstance(layer, RetrofitCacheLayer):
            total += layer.bytes
        else:
            total += sum(tensor.numel() * tensor.element_size() for tensor in (layer.keys, layer.values))
    return total
