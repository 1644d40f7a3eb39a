"""The course of a distillation: which text each step takes, what it may read, and how fast it learns.

Reads fall because their price climbs, by the rules that lead every model here
(:mod:`torchcram.memory.phases`): dearer while the divergence holds, cheaper where it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from torchcram.memory.phases import ConsolidationRules
from torchcram.pretrained.retrofit.recalls import with_recalls

# Share of the steps in which the price climbs to its bound, if the divergence holds throughout.
CLIMB = 0.3
# A step in so many reads nothing at all, so that semantic memory must answer everywhere; and one in so many
# brings text with recalls.
SILENT, RECALLED = 2, 4
# Size of a step of Adam, and share of the steps in which it grows to that; then it falls by a cosine. Some
# thousand features move together: ten times as much diverged within three steps (experiment 14).
RATE, WARM = 1e-5, 0.1
# The divergence holds while it is at most so much above what it was at the dearest price.
TOLERANCE = 0.25
# How often held-out text is asked.
LOOKS = 6
# Below this no price is told from none, in nats.
LEAST_PRICE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Course:
    """Of a distillation.

    Attributes:
        steps: of the optimizer, a window each.
        near: tokens that are near.
        rate: largest size of a step.
        seed: of what is drawn.
        looks: how often held-out text is asked which weights are the best.
    """

    steps: int
    near: int
    rate: float = RATE
    seed: int = 0
    looks: int = LOOKS

    def look_after(self, step: int) -> bool:
        """Whether held-out text is asked behind a step."""
        return (step + 1) * self.looks // self.steps > step * self.looks // self.steps

    def silent(self, step: int) -> bool:
        """Whether nothing is read in a step."""
        # The first step is silent: where nearly everything is read there is little to learn, and Adam would
        # blow that up.
        return step % SILENT == 0

    def rate_at(self, step: int) -> float:
        """Return the size of a step."""
        warm = max(round(WARM * self.steps), 1)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (1 + math.cos(math.pi * (step - warm) / max(self.steps - warm, 1))) / 2

    def window(
        self, lessons: Sequence[Int[Tensor, " _"]], step: int, *, part: int = 0, parts: int = 1
    ) -> Int[Tensor, " tokens"]:
        """Return a window of a step: the same in a resumed run.

        Args:
            lessons: tokens of all windows.
            step: of the optimizer.
            part: which of the windows of the step.
            parts: windows that a step takes: one a process.
        """
        number = step * parts + part
        ids = lessons[number % len(lessons)]
        # Silent steps and others get recalls alike, however many windows a step takes.
        if (step // SILENT) % RECALLED != RECALLED - 1:
            return ids
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        return with_recalls(ids, near=self.near, generator=generator)

    def rules(self, *, cheapest: float, dearest: float, divergence: float) -> ConsolidationRules:
        """Return the rules by which the price climbs.

        Args:
            cheapest: price at which nearly everything is read.
            dearest: price at which the wanted share is read.
            divergence: at that price before the distillation, in nats a token: what is to hold.
        """
        dearest = max(dearest, LEAST_PRICE)
        cheapest = min(max(cheapest, LEAST_PRICE), dearest)
        climbing = max(round(CLIMB * self.steps), 1)
        return ConsolidationRules(
            acquire_steps=0,
            price_start=cheapest,
            price_most=dearest,
            price_growth=(dearest / cheapest) ** (1 / climbing),
            settled_loss=divergence,
            loss_tolerance=TOLERANCE,
            reference_every=1,
        )
