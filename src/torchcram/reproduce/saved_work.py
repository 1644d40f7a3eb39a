"""What a transferred model spares: keys scanned in training until it answers as well as one trained from
scratch.
"""

from __future__ import annotations

from collections.abc import Sequence

# The level to reach: the share of the accuracy that the model trained from scratch ends with.
LEVEL = 0.99


def keys_until(accuracies: Sequence[float], keys: Sequence[float], *, level: float) -> float | None:
    """Return how many keys had been scanned at the first evaluation that reached a level; None if none did.

    Args:
        accuracies: of each evaluation, in their order.
        keys: scanned by training until each, not falling.
        level: accuracy to reach.
    """
    return next(
        (scanned for accuracy, scanned in zip(accuracies, keys, strict=True) if accuracy >= level), None
    )


def saved(ours: float | None, theirs: float | None) -> float | None:
    """Return the share that ``ours`` spares of ``theirs``; negative if it takes more, None where either is
    unknown or there was nothing to spare.
    """
    return None if ours is None or not theirs else 1 - ours / theirs
