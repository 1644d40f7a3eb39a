"""How the attention of each family makes queries, keys and values, and what it does with them: three shapes,
and a table.

The weights of the untouched block are used where they are, never copied. A family that is not in the table is
refused: attention that merely looks alike (other rotations, sinks in the softmax, soft caps) would be wrong
    in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcram.strict import nearest_hint

# The same number of steps, heads side by side.
Projected = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a block of attention is made of.

    Attributes:
        project: from the block's input to queries, keys and values before rotation, ``[batch, heads, time,
            d_head]``.
        output: name of the projection of the heads.
        head_size: name of the attribute that holds the width of a head.
    """

    project: Callable[[nn.Module, Tensor], Projected]
    output: str
    head_size: str = "head_dim"


def _heads(states: Float[Tensor, "batch time width"], size: int) -> Float[Tensor, "batch heads time d_head"]:
    return states.unflatten(-1, (-1, size)).transpose(1, 2)


def _normed(module: nn.Module, name: str, states: Tensor, size: int) -> Tensor:
    """Split heads, and normalise before or after, as wide as the weight of the norm is."""
    norm = getattr(module, name, None)
    if norm is None:
        return _heads(states, size)
    if norm.weight.numel() == size:
        return norm(_heads(states, size))
    return _heads(norm(states), size)


def _separate(module: Any, hidden: Tensor) -> Projected:
    """Three projections, perhaps with norms of queries and keys (one head wide, or of all heads)."""
    size = module.head_dim
    return (
        _normed(module, "q_norm", module.q_proj(hidden), size),
        _normed(module, "k_norm", module.k_proj(hidden), size),
        _heads(module.v_proj(hidden), size),
    )


def _stacked_phi3(module: Any, hidden: Tensor) -> Projected:
    """One projection: all queries, then all keys, then all values."""
    keys = module.num_key_value_heads * module.head_dim
    parts = module.qkv_proj(hidden).split((module.o_proj.in_features, keys, keys), -1)
    query, key, value = (_heads(part, module.head_dim) for part in parts)
    return query, key, value


def _stacked_gpt2(module: Any, hidden: Tensor) -> Projected:
    query, key, value = (_heads(part, module.head_dim) for part in module.c_attn(hidden).chunk(3, -1))
    return query, key, value


def _interleaved_gpt_neox(module: Any, hidden: Tensor) -> Projected:
    """One projection, head by head: its query, its key, its value."""
    query, key, value = _heads(module.query_key_value(hidden), 3 * module.head_size).chunk(3, -1)
    return query, key, value


def _interleaved_falcon(module: Any, hidden: Tensor) -> Projected:
    query, key, value = (part.transpose(1, 2) for part in module._split_heads(module.query_key_value(hidden)))
    return query, key, value


SEPARATE = Family(project=_separate, output="o_proj")
TABLE = {
    "LlamaAttention": SEPARATE,
    "MistralAttention": SEPARATE,
    "Qwen2Attention": SEPARATE,
    "Qwen3Attention": SEPARATE,
    "Gemma3Attention": SEPARATE,
    "Olmo2Attention": SEPARATE,
    "OPTAttention": Family(project=_separate, output="out_proj"),
    "Phi3Attention": Family(project=_stacked_phi3, output="o_proj"),
    "GPT2Attention": Family(project=_stacked_gpt2, output="c_proj"),
    "GPTNeoXAttention": Family(project=_interleaved_gpt_neox, output="dense", head_size="head_size"),
    "FalconAttention": Family(project=_interleaved_falcon, output="dense"),
}


def family_of(module: nn.Module) -> Family:
    """Return how a block of attention is made.

    Raises:
        ValueError: if it is of no known family, or uses something of its family that is not understood.
    """
    kind = type(module).__name__
    if kind not in TABLE:
        raise ValueError(
            f"attention of class {kind} cannot be retrofitted: {nearest_hint(kind, TABLE)}; "
            "what is not in this list computes something else"
        )
    config: Any = getattr(module, "config", None)
    for name, why in (
        ("alibi", "adds a bias by distance to its scores"),
        ("attn_logit_softcapping", "caps its scores"),
        ("use_bidirectional_attention", "looks at later tokens"),
    ):
        if getattr(config, name, None):
            raise ValueError(f"attention of class {kind} with {name} {why}: it cannot be retrofitted")
    if getattr(module, "is_cross_attention", False):
        raise ValueError("cross-attention looks at another sequence: it cannot be retrofitted")
    return TABLE[kind]


def own_window(module: nn.Module) -> int | None:
    """Return the sliding window that the block was trained with, or None."""
    holder = module if hasattr(module, "sliding_window") else getattr(module, "config", None)
    return getattr(holder, "sliding_window", None)


def score_scale(module: Any, family: Family) -> float:
    """Return what scores are multiplied by."""
    return getattr(module, "scaling", getattr(module, family.head_size) ** -0.5)


def rotated(
    states: Float[Tensor, "batch heads time d_head"], embeddings: tuple[Tensor, Tensor] | None
) -> Float[Tensor, "batch heads time d_head"]:
    """Rotate by position, as many channels as there are angles; without embeddings nothing is rotated."""
    if embeddings is None:
        return states
    cos, sin = (part[:, None] for part in embeddings)
    turned, passed = states[..., : cos.shape[-1]], states[..., cos.shape[-1] :]
    first, second = turned.chunk(2, -1)
    turned = turned * cos + torch.cat((-second, first), -1) * sin
    return torch.cat((turned, passed), -1).to(states.dtype)


def projected_output(
    module: Any, family: Family, heads: Float[Tensor, "batch heads time d_head"]
) -> Float[Tensor, "batch time width"]:
    """Return the block's output."""
    output = getattr(module, family.output)(heads.transpose(1, 2).flatten(2))
    return module.resid_dropout(output) if hasattr(module, "resid_dropout") else output
