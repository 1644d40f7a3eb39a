"""Causal attention for a chosen subset of queries: ``reference`` defines it, ``gathered`` computes the chosen queries only."""

from torchcram.ops.routed_attention.gathered import routed_attention
from torchcram.ops.routed_attention.reference import routed_attention_reference

__all__ = ["routed_attention", "routed_attention_reference"]
