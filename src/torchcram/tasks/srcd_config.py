"""What an SRCD sequence looks like: the configuration of :mod:`torchcram.tasks.srcd`."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from torchcram.strict import LATER
from torchcram.tasks.base import TaskConfig


class SRCDConfig(TaskConfig):
    """What an SRCD sequence looks like. The defaults are the paper's full scale.

    Attributes:
        length: steps of a sequence.
        binding_share, query_share: shares of the steps that bind and that query.
        recurrence: share of bindings and of queries whose key is one of the recurring patterns.
        patterns: number of recurring patterns, fixed by ``seed``.
        key_size, values: width of a key vector; number of values.
        pattern_law, zipf_exponent: how often each pattern occurs: equally, or as 1 / rank^exponent.
        introduce_at: ``((step, patterns), ...)``: so many further patterns first appear at that training
            step; the others are there from the start.
        override: re-bindings for every other recurring binding: the share of the recurring keys that are
            bound again, to another value (somewhat more where patterns repeat within a sequence by
            themselves). The latest binding is the answer.
        drift_at: training step from which every recurring pattern has another value; None for never.
        contextual: the value of a recurring pattern depends on a latent context, too: the oscillator's sense
            of rotation.
        redrawn_map: the value of every recurring pattern is drawn anew in each sequence: keys recur, but no
            memory that outlives a sequence can know their values, so that every query needs a read.
        typeless: leave out the two flags that tell bindings and queries from ordinary steps.
        unanswerable: share of the queries whose key was never bound: the answer is the extra class
            ``values``.
        gap_exponent, gap_min, gap_max: Pareto law of the gaps, cut at ``gap_max``.
        frequency, damping: ranges, per unit of time, from which each sequence draws (uniformly).
        stationary_std, observation_std: standard deviations of the process at rest and of an observation's
            error.
        seed: fixes the recurring patterns.
    """

    kind: Literal["srcd"] = "srcd"
    length: int = Field(2048, ge=1)
    binding_share: float = Field(0.08, gt=0.0, lt=1.0)
    query_share: float = Field(0.05, gt=0.0, lt=1.0)
    recurrence: float = Field(0.7, ge=0.0, le=1.0)
    patterns: int = Field(100, ge=0)
    key_size: int = Field(16, ge=2)
    values: int = Field(16, ge=2)
    pattern_law: Literal["uniform", "zipf"] = "uniform"
    zipf_exponent: float = Field(1.0, gt=0.0)
    introduce_at: tuple[tuple[int, int], ...] = ()
    override: float = Field(0.0, ge=0.0, le=1.0)
    drift_at: int | None = Field(None, ge=0)
    contextual: bool = False
    redrawn_map: bool = Field(False, json_schema_extra=LATER)
    typeless: bool = False
    unanswerable: float = Field(0.0, ge=0.0, lt=1.0)
    gap_exponent: float = Field(1.5, gt=0.0)
    gap_min: float = Field(0.1, gt=0.0)
    gap_max: float = Field(10.0, gt=0.0)
    frequency: tuple[float, float] = (0.5, 2.0)
    damping: tuple[float, float] = (0.01, 0.05)
    stationary_std: float = Field(0.7, ge=0.0)
    observation_std: float = Field(0.1, ge=0.0)
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> SRCDConfig:
        if self.recurrence > 0 and self.patterns == 0:
            raise ValueError(
                f"recurrence {self.recurrence} needs patterns, but patterns is 0: set recurrence "
                "to 0 or patterns to at least 1"
            )
        if self.binding_share + self.query_share > 1:
            raise ValueError(
                f"binding_share {self.binding_share} and query_share {self.query_share} exceed 1 "
                f"together: use at most {1 - self.binding_share:g} for queries"
            )
        if any(start < 0 or count < 1 for start, count in self.introduce_at):
            raise ValueError(
                f"introduce_at {self.introduce_at} needs steps of at least 0 and counts of at least 1"
            )
        late = sum(count for _, count in self.introduce_at)
        if late >= max(self.patterns, 1) and self.introduce_at:
            raise ValueError(
                f"introduce_at introduces {late} patterns, at most patterns - 1 = {self.patterns - 1} can "
                "be late"
            )
        if self.gap_max < self.gap_min:
            raise ValueError(f"gap_max {self.gap_max} is below gap_min {self.gap_min}")
        for name, (low, high) in {"frequency": self.frequency, "damping": self.damping}.items():
            if high < low:
                raise ValueError(f"{name} range ({low}, {high}) runs backwards: use ({high}, {low})")
        if self.damping[0] < 0:
            raise ValueError(f"damping {self.damping[0]} is negative: use 0 or more")
        if self.redrawn_map and (self.contextual or self.drift_at is not None):
            other = "contextual" if self.contextual else f"drift_at {self.drift_at}"
            raise ValueError(f"redrawn_map leaves no map for {other} to change: use one of the two")
        if self.contextual and self.frequency[0] <= 0:
            raise ValueError(
                f"frequency {self.frequency[0]} does not tell the sense of rotation, which is the "
                "context: use frequencies above 0"
            )
        self.check_length(self.length)
        return self

    def check_length(self, length: int) -> None:
        """Raise ValueError if sequences of ``length`` steps are too short for their bindings and queries."""
        bindings, queries = self.events(length)
        first = 2 if 0 < self.recurrence < 1 else 1
        if bindings < first or queries < 1 or bindings + queries > length:
            raise ValueError(
                f"length {length} gives {bindings} bindings and {queries} queries; at least {first} and 1 "
                f"are needed: use a length of {self.shortest()} or more, or larger shares"
            )

    def before(self, step: int) -> SRCDConfig:
        """Return the task without a drift that begins at ``step`` or later."""
        late = self.drift_at is not None and self.drift_at >= step
        return self.model_copy(update={"drift_at": None}) if late else self

    def shortest(self) -> int:
        """Return the shortest length that holds enough bindings and queries."""
        first = 2 if 0 < self.recurrence < 1 else 1
        return max(math.ceil(first / self.binding_share - 1e-9), math.ceil(1 / self.query_share - 1e-9))

    def events(self, length: int) -> tuple[int, int]:
        """Return the numbers of bindings and of queries in a sequence of ``length`` steps."""
        # A share of 0.29 of 100 steps is 29 steps, although 0.29 * 100 < 29 in floating point.
        return int(self.binding_share * length + 1e-9), int(self.query_share * length + 1e-9)
