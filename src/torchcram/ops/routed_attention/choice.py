"""Routed attention as the library uses it: pack the selected queries, attend in the way that is fastest
for them, put them back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from torchcram.ops.kernels import kernels_for
from torchcram.ops.routed_attention.gathered import gathered_attention
from torchcram.ops.routed_attention.packing import grouped, pack, repeated, ungrouped
from torchcram.ops.routed_attention.rows import row_attention
from torchcram.ops.routed_attention.tiled import tiled_attention

# Share of selected steps above which all of them are computed. On a CPU, length of the memory from which
# tiles pay, and the widest heads for which blocks of queries are faster: tiles pass over the scores once more
# for every operation, however narrow the heads. Without gradients blocks pay for wider heads, too. All
# measured, see benchmarks/.
DENSE_SHARE = 0.7
TILED_LENGTH = 1024
NARROW_HEAD, NARROW_FORWARD_HEAD = 32, 64
# Queries of the shortest blocks, and most blocks: short blocks look at little in vain, each costs a pass over
# the memory's gradients.
SHORTEST_BLOCK, MOST_BLOCKS = 32, 16
# Heads above this do not fit the kernel's tiles.
LARGEST_HEAD = 128


def routed_attention(
    query: Float[Tensor, "batch heads time d_head"],
    key: Float[Tensor, "batch kv_heads length d_head"],
    value: Float[Tensor, "batch kv_heads length d_head"],
    selected: Bool[Tensor, "batch time"],
    *,
    offset: int | Int[Tensor, " batch"] = 1,
    window: int | None = None,
) -> Float[Tensor, "batch heads time d_head"]:
    """``y_t = sum_s softmax_s(q_t . k_s) v_s`` for selected queries, zero for the others.

    Fast form of :func:`torchcram.ops.routed_attention.routed_attention_reference`, with the same arguments,
    result and gradients.
    Keys and values are taken in the precision of the queries, which autocast may have lowered.

    Raises:
        ValueError: for a window of less than one entry, and for query heads that cannot share the heads of
            keys evenly.
    """
    key, value = _alike(query, key, value, window)
    if (
        isinstance(offset, int)
        and offset == 1
        and window is None
        and selected.numel()
        and bool((selected.sum(1) > DENSE_SHARE * query.shape[2]).all())
    ):
        return _dense(query, key, value, selected)
    if query.shape[2] == 1:
        return ungrouped(
            row_attention(grouped(query, key), key, value, selected, offset=offset, window=window), query
        )
    position, real = pack(selected)
    packed, end = _queries(query, position), _ends(position, real, offset)
    attended = _fastest(grouped(packed, key), key, value, repeated(end, query, key), window)
    return _put_back(ungrouped(attended, packed), query, position, real)


def routed_attention_lse(
    query: Float[Tensor, "batch heads time d_head"],
    key: Float[Tensor, "batch kv_heads length d_head"],
    value: Float[Tensor, "batch kv_heads length d_head"],
    selected: Bool[Tensor, "batch time"],
    *,
    offset: int | Int[Tensor, " batch"] = 1,
    window: int | None = None,
) -> tuple[Float[Tensor, "batch heads time d_head"], Float[Tensor, "batch heads time"]]:
    """``y_t`` of :func:`routed_attention`, and ``log sum_s exp(q_t . k_s)``, minus infinity for queries that
    are not selected: partial results are merged by it.
    """
    key, value = _alike(query, key, value, window)
    position, real = pack(selected)
    packed, end = _queries(query, position), _ends(position, real, offset)
    attended, lse = _with_lse(key)(grouped(packed, key), key, value, repeated(end, query, key), window=window)
    attended, lse = ungrouped(attended, packed), ungrouped(lse[..., None], packed)[..., 0]
    return _put_back(attended.to(query.dtype), query, position, real), _put_back(
        lse[..., None], query[..., :1], position, real, elsewhere=-torch.inf
    )[..., 0]


def _fastest(query: Tensor, key: Tensor, value: Tensor, end: Tensor, window: int | None) -> Tensor:
    """The kernel where there is one; on a CPU tiles or blocks over a long memory; else one call with a
    mask.
    """
    on_cpu = key.device.type == "cpu"
    narrow = NARROW_HEAD if torch.is_grad_enabled() else NARROW_FORWARD_HEAD
    if on_cpu and window is None and key.shape[3] <= narrow:
        return gathered_attention(
            query, key, value, end, block=max(SHORTEST_BLOCK, query.shape[2] // MOST_BLOCKS)
        )
    if _kernel_fits(key) or (on_cpu and key.shape[2] >= TILED_LENGTH):
        return _with_lse(key)(query, key, value, end, window=window)[0]
    return gathered_attention(query, key, value, end, window=window)


def _with_lse(key: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    if not _kernel_fits(key):
        return tiled_attention
    from torchcram.ops.routed_attention.triton import triton_attention

    return triton_attention


def _kernel_fits(key: Tensor) -> bool:
    return kernels_for(key) and key.shape[3] <= LARGEST_HEAD


def _alike(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    if window is not None and window < 1:
        raise ValueError(f"a window of {window} entries sees nothing: use 1 or more, or None for all")
    return key.to(query.dtype), value.to(query.dtype)


def _dense(query: Tensor, key: Tensor, value: Tensor, selected: Tensor) -> Tensor:
    """Entry t is what step t - 1 wrote, so "strictly earlier, and the null entry" is the ordinary causal
    triangle.
    """
    time = query.shape[2]
    output = scaled_dot_product_attention(
        query, key[:, :, :time], value[:, :, :time], is_causal=True, scale=1.0, enable_gqa=True
    )
    return output if bool(selected.all()) else output * selected[:, None, :, None]


def _queries(
    query: Tensor, position: Int[Tensor, "batch packed"]
) -> Float[Tensor, "batch heads packed d_head"]:
    return query.gather(2, position[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))


def _ends(
    position: Int[Tensor, "batch packed"],
    real: Bool[Tensor, "batch packed"],
    offset: int | Int[Tensor, " batch"],
) -> Int[Tensor, "batch packed"]:
    """How many entries were written before each query; padding stands where the last real query stands, so
    that it widens no tile.
    """
    return (
        torch.as_tensor(offset, device=position.device).view(-1, 1)
        + torch.where(real, position, 0).cummax(1).values
    )


def _put_back(
    rows: Tensor, query: Tensor, position: Tensor, real: Tensor, *, elsewhere: float = 0.0
) -> Float[Tensor, "batch heads time width"]:
    """Return what was found where it was asked for.

    Only these rows are written: most of the output stays as it was allotted.
    """
    row, place = real.nonzero(as_tuple=True)
    output = rows.new_full(query.shape, elsewhere)
    output[row, :, position[row, place]] = rows[row, :, place]
    return output
