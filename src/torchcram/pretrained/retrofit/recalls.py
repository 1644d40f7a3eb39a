"""Text that must be looked up: what was said far back comes again.

Plain prose seldom needs one certain token of long ago. Here spans of a window are written again, so far
behind that no near attention sees them: their first tokens are the key, the others the value, and a model
that copies must read. Any tokenizer will do.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

# Tokens of a span, and of a window for each span that comes again.
SHORTEST, LONGEST, EVERY = 12, 32, 256


def with_recalls(
    ids: Int[Tensor, " tokens"], *, near: int, generator: torch.Generator
) -> Int[Tensor, " tokens"]:
    """Return a window in whose second half spans of its first half come again.

    Args:
        ids: the window; one that is too short for spans beyond the near tokens is returned as it is.
        near: tokens that are near; what comes again lies at least as far behind.
        generator: draws the spans and their places.
    """
    half, length = len(ids) // 2, min(LONGEST, len(ids) // 8)
    if length < 2 or len(ids) - length < half + near:
        return ids
    mixed = ids.clone()
    count = max(len(ids) // EVERY, 1)
    # Places lie in stretches of their own, so that no span is written over another one.
    stretch = (len(ids) - max(half, near + length)) // count
    for number in range(count):
        size = _drawn(min(SHORTEST, length), length, generator)
        begin = len(ids) - (number + 1) * stretch
        place = _drawn(begin, max(begin, begin + stretch - size), generator)
        source = _drawn(0, max(min(half, place - near) - size, 0), generator)
        end = min(place + size, len(ids))
        mixed[place:end] = ids[source : source + end - place]
    return mixed


def _drawn(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=generator))
