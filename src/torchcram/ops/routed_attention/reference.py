"""The definition of routed attention, one query at a time.

Query ``t`` reads what was written *before* it: the null entry at index 0, always, and of the others the last
``window`` ones (all if None). ``offset`` entries (the null entry among them), in sequence ``b`` ``offset[b]``
of them, were in memory before the first query's step. Reading strictly earlier entries leaves a token's own
content to the residual stream, and gives the first token something to read. Neighbouring query heads may
share a head of keys and values (grouped-query attention, Ainslie et al. 2023).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def routed_attention_reference(
    query: Float[Tensor, "batch heads time d_head"],
    key: Float[Tensor, "batch kv_heads length d_head"],
    value: Float[Tensor, "batch kv_heads length d_head"],
    selected: Bool[Tensor, "batch time"],
    *,
    offset: int | Int[Tensor, " batch"] = 1,
    window: int | None = None,
) -> Float[Tensor, "batch heads time d_head"]:
    """``y_t = sum_s softmax_s(q_t . k_s) v_s`` over the entries that step ``t`` may see, for selected queries
    (already scaled); zero for the others.
    """
    key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
    output = torch.zeros_like(query)
    for row, t in selected.nonzero().tolist():
        end = (offset if isinstance(offset, int) else int(offset[row])) + t
        start = 1 if window is None else max(1, end - window)
        visible = [0, *range(start, end)]
        scores = query[row, :, t, None] @ key[row, :, visible].mT
        output[row, :, t] = (scores.softmax(-1) @ value[row, :, visible])[:, 0]
    return output
