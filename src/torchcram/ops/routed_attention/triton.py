"""Routed attention as Triton kernels: tiles as in ``tiled``, but on a GPU, with the memory split among
programs so that few queries fill the device.

Needs the package ``triton`` (extra ``kernels``); imported only where it is used. The null entry starts every
softmax (forward) or is handled in PyTorch (backward), so that with a window the kernels walk over the window
alone. Splits are merged by their log-sum-exp, as in flash decoding (Dao et al. 2023). Kernels are tested
without a GPU under ``TRITON_INTERPRET=1``: ``make test-kernels``. Forward and backward are one file, as they
share the walk over tiles. Legend: ``row`` = one head of one sequence.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# Sides of a tile, and the shortest part of the memory that is worth a program of its own.
BLOCK_QUERIES, BLOCK_ENTRIES, SHORTEST_SPLIT = 32, 64, 512
# Programs that a multiprocessor should have to choose from.
PROGRAMS = 4


def triton_attention(
    query: Float[Tensor, "batch heads packed d_head"],
    key: Float[Tensor, "batch heads length d_head"],
    value: Float[Tensor, "batch heads length d_head"],
    end: Int[Tensor, "batch packed"],
    *,
    window: int | None = None,
    splits: int | None = None,
) -> tuple[Float[Tensor, "batch heads packed d_head"], Float[Tensor, "batch heads packed"]]:
    """``y_t = sum_s softmax_s(q_t . k_s) v_s`` and ``log sum_s exp(q_t . k_s)`` of packed queries: as
    :func:`torchcram.ops.routed_attention.tiled.tiled_attention`.

    ``splits``: parts of the memory; chosen by the device if None.
    """
    return _Attention.apply(query, key, value, end, window or 0, splits)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, end: Tensor, window: int, splits: int | None
    ) -> tuple[Tensor, Tensor]:
        query, key, value, end = (tensor.contiguous() for tensor in (query, key, value, end.int()))
        splits = splits or _splits(query, key)
        output, lse = _forward(query, key, value, end, window, splits)
        ctx.save_for_backward(query, key, value, end, output, lse)
        ctx.window, ctx.splits = window, splits
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, end, output, lse = ctx.saved_tensors
        own = (grad.to(lse.dtype) * output.to(lse.dtype)).sum(-1) - grad_lse
        gradients = _backward(query, key, value, end, lse, own, grad.contiguous(), ctx.window, ctx.splits)
        return *gradients, None, None, None


def _splits(query: Tensor, key: Tensor) -> int:
    """Return in how many parts the memory is read, so that every multiprocessor has work."""
    processors = torch.cuda.get_device_properties(query.device).multi_processor_count if query.is_cuda else 1
    programs = max(1, triton.cdiv(query.shape[2], BLOCK_QUERIES) * query.shape[0] * query.shape[1])
    return max(
        1, min(triton.cdiv(PROGRAMS * processors, programs), triton.cdiv(key.shape[2], SHORTEST_SPLIT))
    )


def _sizes(query: Tensor, key: Tensor, window: int, splits: int) -> dict[str, Any]:
    """Return what all kernels must know: sizes, tiles, and in which precision to add up."""
    fast = query.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return {
        "heads": query.shape[1],
        "packed": query.shape[2],
        "length": key.shape[2],
        "span": triton.cdiv(key.shape[2], splits),
        "WINDOW": window,
        "SIZE": query.shape[3],
        "BLOCK_SIZE": max(16, triton.next_power_of_2(query.shape[3])),
        "BLOCK_QUERIES": BLOCK_QUERIES,
        "BLOCK_ENTRIES": BLOCK_ENTRIES,
        "WIDE": tl.float64 if query.dtype == torch.float64 else tl.float32,
        "PRECISION": "tf32" if fast else "ieee",
    }


def _forward(
    query: Tensor, key: Tensor, value: Tensor, end: Tensor, window: int, splits: int
) -> tuple[Tensor, Tensor]:
    batch, heads, packed, _ = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    output, lse = (
        query.new_empty((splits, *query.shape), dtype=wide),
        query.new_empty((splits, *query.shape[:3]), dtype=wide),
    )
    if output.numel():
        grid = (batch * heads, triton.cdiv(packed, BLOCK_QUERIES), splits)
        with torch.cuda.device_of(query):
            _forward_kernel[grid](query, key, value, end, output, lse, **_sizes(query, key, window, splits))
    total = lse.logsumexp(0)
    return ((lse - total).exp()[..., None] * output).sum(0).to(query.dtype), total


def _backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    end: Tensor,
    lse: Tensor,
    own: Tensor,
    grad: Tensor,
    window: int,
    splits: int,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, packed, _ = query.shape
    parts = lse.new_zeros((splits, *query.shape))
    grad_key, grad_value = lse.new_zeros(key.shape), lse.new_zeros(value.shape)
    if query.numel():
        sizes = _sizes(query, key, window, splits)
        first, last = _readers(end, key.shape[2], window)
        with torch.cuda.device_of(query):
            of_queries = (batch * heads, triton.cdiv(packed, BLOCK_QUERIES), splits)
            _query_kernel[of_queries](query, key, value, end, lse, own, grad, parts, **sizes)
            of_entries = (batch * heads, first.shape[1])
            _memory_kernel[of_entries](
                query, key, value, end, lse, own, grad, grad_key, grad_value, first, last, **sizes
            )
    grad_query = parts.sum(0)
    # The null entry, which everybody sees.
    wide = [tensor.to(lse.dtype) for tensor in (query, grad, key[:, :, :1], value[:, :, :1])]
    weight = ((wide[0] * wide[2]).sum(-1) - lse).exp()
    slope = weight * ((wide[1] * wide[3]).sum(-1) - own)
    grad_query += slope[..., None] * wide[2]
    grad_key[:, :, 0] += (slope[..., None] * wide[0]).sum(2)
    grad_value[:, :, 0] += (weight[..., None] * wide[1]).sum(2)
    return grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype)


def _readers(end: Tensor, length: int, window: int) -> tuple[Tensor, Tensor]:
    """Return, for each block of entries, the packed queries that see a part of it: from the first up to
    (not with) the last. ``end`` never falls.
    """
    starts = (
        torch.arange(0, length, BLOCK_ENTRIES, device=end.device, dtype=end.dtype)
        .expand(end.shape[0], -1)
        .contiguous()
    )
    first = torch.searchsorted(end, starts, right=True)
    last = (
        torch.full_like(first, end.shape[1])
        if window == 0
        else torch.searchsorted(end, starts + BLOCK_ENTRIES + window)
    )
    return first.int(), last.int()


@triton.jit
@no_type_check
def _forward_kernel(
    query,
    key,
    value,
    end,
    output,
    lse,
    heads,
    packed,
    length,
    span,
    WINDOW: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_ENTRIES: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(2)
    m, d = tl.program_id(1) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES), tl.arange(0, BLOCK_SIZE)
    real, inside = m < packed, d < SIZE
    asked = tl.load(query + (row * packed + m[:, None]) * SIZE + d, mask=real[:, None] & inside, other=0.0)
    ends = tl.load(end + (row // heads) * packed + m, mask=real, other=1)
    null_key = tl.load(key + row * length * SIZE + d, mask=inside, other=0.0)
    null_value = tl.load(value + row * length * SIZE + d, mask=inside, other=0.0)
    is_first = split == 0
    highest = tl.where(is_first, tl.sum(asked.to(WIDE) * null_key[None, :].to(WIDE), 1), -1.0e30)
    norm = tl.where(is_first, 1.0, 0.0).to(WIDE) + tl.zeros([BLOCK_QUERIES], WIDE)
    total = tl.where(is_first, null_value[None, :].to(WIDE), 0.0) + tl.zeros(
        [BLOCK_QUERIES, BLOCK_SIZE], WIDE
    )
    start, stop = _range(ends, real, split, span, length, WINDOW)
    for begin in range(start, stop, BLOCK_ENTRIES):
        entry = begin + tl.arange(0, BLOCK_ENTRIES)
        there = (entry < stop)[:, None] & inside
        keys = tl.load(key + (row * length + entry[:, None]) * SIZE + d, mask=there, other=0.0)
        values = tl.load(value + (row * length + entry[:, None]) * SIZE + d, mask=there, other=0.0)
        seen = _seen(entry, ends, stop, WINDOW)
        scores = tl.where(seen, tl.dot(asked, tl.trans(keys), input_precision=PRECISION).to(WIDE), -1.0e30)
        most = tl.maximum(highest, tl.max(scores, 1))
        weights, fade = tl.where(seen, tl.exp(scores - most[:, None]), 0.0), tl.exp(highest - most)
        norm = norm * fade + tl.sum(weights, 1)
        total = total * fade[:, None] + tl.dot(
            weights.to(values.dtype), values, input_precision=PRECISION
        ).to(WIDE)
        highest = most
    place = split.to(tl.int64) * tl.num_programs(0) * packed + row * packed + m
    some = tl.where(norm > 0, norm, 1.0)
    tl.store(output + place[:, None] * SIZE + d, total / some[:, None], mask=real[:, None] & inside)
    tl.store(lse + place, tl.where(norm > 0, highest + tl.log(some), -float("inf")), mask=real)


@triton.jit
@no_type_check
def _query_kernel(
    query,
    key,
    value,
    end,
    lse,
    own,
    grad,
    parts,
    heads,
    packed,
    length,
    span,
    WINDOW: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_ENTRIES: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(2)
    m, d = tl.program_id(1) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES), tl.arange(0, BLOCK_SIZE)
    real, inside = m < packed, d < SIZE
    at = (row * packed + m[:, None]) * SIZE + d
    asked = tl.load(query + at, mask=real[:, None] & inside, other=0.0)
    above = tl.load(grad + at, mask=real[:, None] & inside, other=0.0)
    ends = tl.load(end + (row // heads) * packed + m, mask=real, other=1)
    level = tl.load(lse + row * packed + m, mask=real, other=0.0)
    mine = tl.load(own + row * packed + m, mask=real, other=0.0)
    total = tl.zeros([BLOCK_QUERIES, BLOCK_SIZE], WIDE)
    start, stop = _range(ends, real, split, span, length, WINDOW)
    for begin in range(start, stop, BLOCK_ENTRIES):
        entry = begin + tl.arange(0, BLOCK_ENTRIES)
        there = (entry < stop)[:, None] & inside
        keys = tl.load(key + (row * length + entry[:, None]) * SIZE + d, mask=there, other=0.0)
        values = tl.load(value + (row * length + entry[:, None]) * SIZE + d, mask=there, other=0.0)
        scores = tl.dot(asked, tl.trans(keys), input_precision=PRECISION).to(WIDE)
        weights = tl.exp(tl.where(_seen(entry, ends, stop, WINDOW), scores - level[:, None], -1.0e30))
        slope = weights * (
            tl.dot(above, tl.trans(values), input_precision=PRECISION).to(WIDE) - mine[:, None]
        )
        total += tl.dot(slope.to(keys.dtype), keys, input_precision=PRECISION).to(WIDE)
    place = split.to(tl.int64) * tl.num_programs(0) * packed + row * packed + m
    tl.store(parts + place[:, None] * SIZE + d, total, mask=real[:, None] & inside)


@triton.jit
@no_type_check
def _memory_kernel(
    query,
    key,
    value,
    end,
    lse,
    own,
    grad,
    grad_key,
    grad_value,
    first,
    last,
    heads,
    packed,
    length,
    span,
    WINDOW: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_ENTRIES: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    entry, d = block * BLOCK_ENTRIES + tl.arange(0, BLOCK_ENTRIES), tl.arange(0, BLOCK_SIZE)
    inside = d < SIZE
    there = (entry < length)[:, None] & inside
    at = (row * length + entry[:, None]) * SIZE + d
    keys, values = tl.load(key + at, mask=there, other=0.0), tl.load(value + at, mask=there, other=0.0)
    sum_keys, sum_values = (
        tl.zeros([BLOCK_ENTRIES, BLOCK_SIZE], WIDE),
        tl.zeros([BLOCK_ENTRIES, BLOCK_SIZE], WIDE),
    )
    readers = (row // heads) * tl.num_programs(1) + block
    for begin in range(tl.load(first + readers), tl.load(last + readers), BLOCK_QUERIES):
        m = begin + tl.arange(0, BLOCK_QUERIES)
        real = m < packed
        asked = tl.load(
            query + (row * packed + m[:, None]) * SIZE + d, mask=real[:, None] & inside, other=0.0
        )
        above = tl.load(grad + (row * packed + m[:, None]) * SIZE + d, mask=real[:, None] & inside, other=0.0)
        ends = tl.load(end + (row // heads) * packed + m, mask=real, other=1)
        level = tl.load(lse + row * packed + m, mask=real, other=0.0)
        mine = tl.load(own + row * packed + m, mask=real, other=0.0)
        scores = tl.dot(asked, tl.trans(keys), input_precision=PRECISION).to(WIDE)
        weights = tl.exp(
            tl.where(_seen(entry, ends, length, WINDOW) & real[:, None], scores - level[:, None], -1.0e30)
        )
        slope = weights * (
            tl.dot(above, tl.trans(values), input_precision=PRECISION).to(WIDE) - mine[:, None]
        )
        sum_values += tl.dot(tl.trans(weights).to(above.dtype), above, input_precision=PRECISION).to(WIDE)
        sum_keys += tl.dot(tl.trans(slope).to(asked.dtype), asked, input_precision=PRECISION).to(WIDE)
    tl.store(grad_key + at, sum_keys, mask=there)
    tl.store(grad_value + at, sum_values, mask=there)


@triton.jit
@no_type_check
def _range(ends, real, split, span, length, WINDOW: tl.constexpr):
    """Return the entries of a split that some query of the block sees, the null entry apart: from the
    first up to (not with) the last.
    """
    start, stop = (
        tl.maximum(split * span, 1),
        tl.minimum(tl.minimum((split + 1) * span, length), tl.max(ends)),
    )
    if WINDOW > 0:
        start = tl.maximum(start, tl.min(tl.where(real, ends, length)) - WINDOW)
    return start, stop


@triton.jit
@no_type_check
def _seen(entry, ends, stop, WINDOW: tl.constexpr):
    """Return which entries each query sees, the null entry apart."""
    seen = (entry[None, :] < ends[:, None]) & (entry >= 1)[None, :] & (entry < stop)[None, :]
    if WINDOW > 0:
        seen = seen & (entry[None, :] >= ends[:, None] - WINDOW)
    return seen
