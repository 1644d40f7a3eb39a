"""Three tasks that a model of SRCD has not seen (paper, transfer): what it has consolidated should still
spare it reads.

Each is SRCD with one thing changed, and needs a new head: ``readout`` asks for the class of a value instead
of the value, ``dynamics`` turns faster and fades sooner, ``new_keys`` replaces half of the patterns by
others, keys and values. A memory that is kept answers the patterns that stayed; what is new must be read. One
query of each, for a pattern K7 bound to value 3 in SRCD::

    readout    Q:K7 -> class of 3        (the same key, the same retrieval, another answer)
    dynamics   Q:K7 -> 3                 (the same answer, amid other observations)
    new_keys   Q:K7 -> 3,  Q:K'7 -> 11   (K'7 has taken the place of another pattern)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor

from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.types import Batch, Head

# Apart from the seed that drew the patterns of SRCD.
UNSEEN_SEED = 7919


class TransferConfig(SRCDConfig):
    """An unseen task: the fields of SRCD, and what is new.

    Attributes:
        unseen: which of the three.
        classes: of ``readout``: values are shared out evenly, at random, to so many.
        faster: of ``dynamics``: factor of the range of frequencies, and of the range of damping.
    """

    # A discriminator narrows the kind of what it derives from.
    kind: Literal["transfer"] = "transfer"  # type: ignore[assignment]
    unseen: Literal["readout", "dynamics", "new_keys"] = "readout"
    classes: int = Field(4, ge=2)
    faster: float = Field(2.5, gt=0.0)

    @model_validator(mode="after")
    def _told_apart(self) -> TransferConfig:
        if self.unseen == "readout" and self.classes > self.values:
            raise ValueError(
                f"classes {self.classes} exceed the {self.values} values that they are made of: "
                f"use at most {self.values}"
            )
        if self.unseen == "new_keys" and self.patterns < 2:
            raise ValueError(
                f"new_keys replaces half of the patterns, but patterns is {self.patterns}: use at least 2"
            )
        return self


class Transfer(SRCD):
    """An unseen task.

    Args:
        config: which, and what its sequences look like.
    """

    def __init__(self, config: TransferConfig):
        changed = {
            name: tuple(config.faster * end for end in getattr(config, name))
            for name in ("frequency", "damping")
        }
        super().__init__(config.model_copy(update=changed) if config.unseen == "dynamics" else config)
        self.unseen, self.replaced = config.unseen, torch.zeros(config.patterns, dtype=torch.bool)
        self.classes = (
            torch.randperm(config.values, generator=torch.Generator().manual_seed(UNSEEN_SEED))
            % config.classes
        )
        if config.unseen == "new_keys":
            others = SRCD(
                SRCDConfig.parse(
                    {
                        **config.model_dump(include=set(SRCDConfig.model_fields)),
                        "kind": "srcd",
                        "seed": config.seed + UNSEEN_SEED,
                    }
                )
            )
            self.replaced[config.patterns // 2 :] = True
            self.keys = torch.where(self.replaced[:, None], others.keys, self.keys)
            self._maps = torch.where(self.replaced, others._maps, self._maps)

    @property
    def heads(self) -> tuple[Head, ...]:
        """As in SRCD; ``readout`` answers with one of its classes."""
        answer, *others = super().heads
        if self.unseen != "readout":
            return (answer, *others)
        return (replace(answer, size=len(self.classes.unique()) + answer.size - self.config.values), *others)

    def batch(
        self, size: int, *, generator: torch.Generator, step: int = 0, length: int | None = None
    ) -> Batch:
        """Draw ``size`` sequences. See :class:`torchcram.tasks.base.Task`."""
        batch = super().batch(size, generator=generator, step=step, length=length)
        if self.unseen == "readout":
            return replace(batch, targets={**batch.targets, "answer": self._classed(batch.targets["answer"])})
        if self.unseen == "new_keys":
            pattern = batch.info["pattern"]
            replaced = batch.slices["query"] & (pattern >= 0) & self.replaced[pattern.clamp_min(0)]
            return replace(batch, slices={**batch.slices, "replaced": replaced})
        return batch

    def _classed(self, answer: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
        """Turn values into their classes; the class of what is unanswerable follows them, and steps
        without a query stay.
        """
        table = torch.cat([self.classes, self.classes.amax()[None] + 1])
        return torch.where(answer >= 0, table[answer.clamp_min(0)], answer)
