"""The bound on static routing (paper, theory section): what a reader that decides by the token alone can
answer at each share of reads.

Premises, argued in ``docs/theory.md``: queries are a share ``q`` of the steps; nothing but a read of the
context tells a query's value, which is uniform over ``values``; whether a step reads depends on its own
token. Then every query is worth the same, and reads of a share ``b`` of the steps answer ``b / q + (1 - b /
q) / values`` of the queries at best. A parametric memory of the map breaks the premise, and with it the
bound: whoever knows the share ``known`` of the queries by heart reads for the others alone. Nothing here
looks at a model.
"""

from __future__ import annotations


def static_accuracy(read_share: float, *, query_share: float, values: int, known: float = 0.0) -> float:
    """Return the greatest expected accuracy of a static reader.

    Args:
        read_share: share of the steps that read, in [0, 1].
        query_share: share of the steps that query, in (0, 1].
        values: number of equally likely values.
        known: share of the queries whose values are known without a read; 0 under the bound's premise.

    Raises:
        ValueError: for shares outside their range, or less than one value.
    """
    _check(query_share=query_share, values=values, known=known)
    if not 0 <= read_share <= 1:
        raise ValueError(f"read_share {read_share} is a share of the steps: it must lie in [0, 1]")
    unknown = 1 - known
    answered = min(read_share / query_share, unknown)
    return known + answered + (unknown - answered) / values


def _check(*, query_share: float, values: int, known: float) -> None:
    if not 0 < query_share <= 1:
        raise ValueError(f"query_share {query_share} is a share of the steps: it must lie in (0, 1]")
    if values < 1:
        raise ValueError(f"values {values} must be at least 1")
    if not 0 <= known <= 1:
        raise ValueError(f"known {known} is a share of the queries: it must lie in [0, 1]")
