"""Causal attention for a chosen subset of queries.

``reference`` defines it; ``gathered`` (at once or in blocks), ``tiled``, ``triton`` (on GPUs) and (for a
single step) ``rows`` compute the chosen ones only, and ``choice`` picks among them; ``dense`` is for export.
"""

from torchcram.ops.routed_attention.choice import routed_attention, routed_attention_lse
from torchcram.ops.routed_attention.dense import dense_attention
from torchcram.ops.routed_attention.reference import routed_attention_reference

__all__ = ["dense_attention", "routed_attention", "routed_attention_lse", "routed_attention_reference"]
