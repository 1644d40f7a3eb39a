"""Semantic memory that knows nothing, and one that answers for the wrong token: if consolidation does the
work, both must cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from torchcram.pretrained.retrofit.evidence import Evidence
from torchcram.pretrained.retrofit.install import memories
from torchcram.pretrained.retrofit.parts import Part
from torchcram.pretrained.rivals.contender import hooked
from torchcram.pretrained.rivals.retrofitted import Retrofitted


def silent(module: Any, args: Any, part: Part) -> Part:
    """Return a remote part without any mass: what is not read is as if it were not there."""
    return Part(value=torch.zeros_like(part.value), log_mass=torch.full_like(part.log_mass, -torch.inf))


class Zeroed(Retrofitted):
    """Semantic memory predicts nothing; the router decides as before."""

    name = "memory zeroed"
    source = "ablation"

    @contextmanager
    def acting(self, model: Any) -> Iterator[None]:
        """Silence the semantic memories."""
        with hooked({memory.semantic: silent for memory in memories(model).values()}):
            yield


class Shuffled(Retrofitted):
    """Semantic memory answers each token with what it predicts for another one of the same layer and pass.

    Args:
        prices: as in :class:`torchcram.pretrained.rivals.retrofitted.Retrofitted`.
        seed: of the order of the tokens.
    """

    name = "memory shuffled"
    source = "ablation"

    def __init__(self, *, prices: Mapping[float, float] | None = None, seed: int = 0):
        super().__init__(prices=prices)
        self.seed = seed

    @contextmanager
    def acting(self, model: Any) -> Iterator[None]:
        """Shuffle what the semantic memories say."""
        with hooked({memory.semantic: self._shuffle for memory in memories(model).values()}):
            yield

    def _shuffle(self, module: Any, args: tuple[Evidence], part: Part) -> Part:
        # How much is remote is a token's own; the mass of an average remote token is shuffled.
        some = args[0].remote > 0
        many = args[0].remote[some].log()[:, None]
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(int(some.sum()), generator=generator).to(part.log_mass.device)
        value, log_mass = part.value.clone(), part.log_mass.clone()
        value[some] = part.value[some][order]
        log_mass[some] = (part.log_mass[some] - many)[order] + many
        return Part(value=value, log_mass=log_mass)
