"""The words in every table, as pure functions of decisions and shapes.

A *read* is any operation whose cost grows with the length of the context. *Read rate* of a layer: share of
tokens whose route is EPISODIC there, or could not be found without a read. *Any-layer read rate*: share of
tokens that read in at least one layer. *Attention share*: keys scanned, summed over layers and tokens, over
what dense causal attention would scan. All shares are fractions in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from torchcram.types import MixingCost, RoutingDecision


def any_layer(decisions: Sequence[RoutingDecision]) -> Bool[Tensor, "batch time"]:
    """Return which tokens read in at least one layer."""
    return torch.stack([decision.read for decision in decisions]).any(0)


def any_layer_used(decisions: Sequence[RoutingDecision]) -> Bool[Tensor, "batch time"]:
    """Return which tokens' outputs use a read in at least one layer: all that the paper counts."""
    return torch.stack([decision.used for decision in decisions]).any(0)


def in_need(decisions: Sequence[RoutingDecision]) -> Bool[Tensor, "batch time"]:
    """Return which tokens want a retrieval in at least one layer, whether semantic or episodic memory
    gives it.
    """
    return torch.stack([decision.route > 0 for decision in decisions]).any(0)


def keys_visible(
    written: Bool[Tensor, "batch time"], *, window: int | None = None
) -> Int[Tensor, "batch time"]:
    """Return how many keys a read at each step scans: the null entry, and those written before it (the
    last ``window`` of them).
    """
    before = written.cumsum(1) - written.long()
    return 1 + (before if window is None else before.clamp_max(window))


def keys_scanned(
    read: Bool[Tensor, "batch time"],
    *,
    window: int | None = None,
    written: Bool[Tensor, "batch time"] | None = None,
) -> Int[Tensor, ""]:
    """Return the number of keys that the given reads scan, over all sequences; ``written`` is None where
    every token is in memory.
    """
    return (keys_visible(torch.ones_like(read) if written is None else written, window=window) * read).sum()


def dense_keys(mask: Bool[Tensor, "batch time"]) -> Int[Tensor, ""]:
    """Return the number of keys that one layer of dense causal attention scans on the real steps."""
    return keys_scanned(mask)


@dataclass(frozen=True, kw_only=True)
class MixingCounts:
    """What one layer did on some sequences: numbers of keys scanned, tokens, tokens that asked semantic
    memory, bindings followed.
    """

    keys: float
    tokens: float
    asked: float = 0.0
    written: float = 0.0


def mixing_shares(
    costs: Sequence[MixingCost], counts: Sequence[MixingCounts], *, dense_keys_per_layer: float
) -> tuple[float, float]:
    """Return operations and bytes of all memories, over what dense attention in every layer would take."""
    pairs = list(zip(costs, counts, strict=True))
    flops = sum(
        c.flops_key * n.keys
        + c.flops_token * n.tokens
        + c.flops_asked * n.asked
        + c.flops_written * n.written
        for c, n in pairs
    )
    moved = sum(
        c.bytes_key * n.keys
        + c.bytes_token * n.tokens
        + c.bytes_asked * n.asked
        + c.bytes_written * n.written
        for c, n in pairs
    )
    return flops / sum(c.flops_key * dense_keys_per_layer for c in costs), moved / sum(
        c.bytes_key * dense_keys_per_layer for c in costs
    )


def attention_cost(d_model: int) -> MixingCost:
    """Return the cost of softmax attention: two products of ``d_model`` a key; key and value in fp32."""
    return MixingCost(flops_key=4.0 * d_model, bytes_key=8.0 * d_model)


def size_of(part: nn.Module | None) -> int:
    """Return the number of parameters of a part; 0 if there is none."""
    return 0 if part is None else sum(parameter.numel() for parameter in part.parameters())


def routed_cost(d_model: int, *, router: int, semantic: int, familiarity: int, flags: int) -> MixingCost:
    """Return the cost of attention behind a router.

    Args:
        d_model: width.
        router: parameters of the router; every token uses each of them once.
        semantic: parameters of semantic memory; a token that asks uses each of them once.
        familiarity: parameters of the estimator, likewise.
        flags: slots that a surprise trace watches; 0 without one.
    """
    binds, align = (d_model, d_model**2) if flags else (0, 0)
    token, asked = router + binds, semantic + familiarity + flags
    written = semantic + align + d_model**2 + 2 * flags
    return replace(
        attention_cost(d_model),
        flops_token=2.0 * token,
        bytes_token=4.0 * token,
        flops_asked=2.0 * asked,
        bytes_asked=4.0 * asked,
        flops_written=2.0 * written,
        bytes_written=4.0 * written,
    )


def transition_step(
    steps: Sequence[int], rates: Sequence[float], *, final: float, factor: float = 1.5
) -> int | None:
    """Return the first recorded step from which on the read rate stays at or below ``factor`` times
    ``final``, the rate of the finished model.

    None without a record, or if the last rate is still above.
    """
    above = [i for i, rate in enumerate(rates) if rate > factor * final]
    first = above[-1] + 1 if above else 0
    return int(steps[first]) if first < len(rates) else None


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """Peak over final, split into its two causes; ``any_layer = need * consolidation``."""

    any_layer: float
    need: float
    consolidation: float
    attention_share: float


def reduction(
    *, peak_rate: float, need_rate: float, final_rate: float, peak_share: float, final_share: float
) -> Reduction:
    """Return by how much reading fell: because tokens need no retrieval, and because semantic memory
    answers those that do.
    """
    return Reduction(
        any_layer=_ratio(peak_rate, final_rate),
        need=_ratio(peak_rate, need_rate),
        consolidation=_ratio(need_rate, final_rate),
        attention_share=_ratio(peak_share, final_share),
    )


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else float("inf") if above > 0 else 1.0
