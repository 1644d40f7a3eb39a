"""What a task is: something that draws batches from a passed generator and says which heads they train.

Any object with these members can be trained: see ``docs/tutorial.md`` for one's own data.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from torchcram.types import Batch, Head


def generator_of(seed: int, index: int, *, fresh: bool = False) -> torch.Generator:
    """Return the generator of a training step, or of a batch of ``fresh`` sequences, which no training step
    of any seed draws.

    Torch's generator on the CPU looks at the lower 32 bits of its key only. So keys of training lie in [0,
    2^30), all others in [2^30, 2^32).
    """
    key = seed * 1_000_003 + index
    if not fresh:
        return torch.Generator().manual_seed(key % 2**30)
    key %= 2**32
    return torch.Generator().manual_seed(key if key >= 2**30 else key + 2**30)


@runtime_checkable
class Task(Protocol):
    """A source of batches."""

    @property
    def input_size(self) -> int | None:
        """Number of continuous features a step carries; None if a step is one symbol, whose number a
        member ``vocabulary`` then tells.
        """
        ...

    @property
    def heads(self) -> tuple[Head, ...]:
        """The outputs that a model of this task needs."""
        ...

    def batch(
        self, size: int, *, generator: torch.Generator, step: int = 0, length: int | None = None
    ) -> Batch:
        """Draw ``size`` sequences.

        Args:
            size: number of sequences.
            generator: the only source of randomness.
            step: training step, for tasks that change while a model learns.
            length: number of steps of each sequence; None for the task's own (a length curriculum passes
                shorter ones).
        """
        ...
