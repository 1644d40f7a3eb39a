"""Causal attention for a chosen subset of queries: ``reference`` defines it, ``gathered`` and ``tiled`` compute the chosen ones only, ``choice`` picks."""

from torchcram.ops.routed_attention.choice import routed_attention, routed_attention_lse
from torchcram.ops.routed_attention.reference import routed_attention_reference

__all__ = ["routed_attention", "routed_attention_lse", "routed_attention_reference"]
