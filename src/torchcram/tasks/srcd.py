"""SRCD, Sparse Retrieval in Continuous Dynamics: the paper's benchmark (section 5), vectorised and seeded by
a passed generator.

Every step observes a damped oscillator at an irregular moment (Pareto gaps). Some steps also *bind* a key to
a value, some *query* a key bound earlier in the same sequence. Most queried keys belong to patterns that
recur in every sequence (and can be learned by heart); the others are new each time (and can only be looked
up). One short sequence, ``B`` = binding, ``Q`` = query, upper case = recurring key::

    time      0.0  0.1  0.4  0.5  0.9  1.0  1.1  2.3  2.4
    step       .   B:K7  .   B:k   .    .   Q:k   .   Q:K7
    value           3         11                 (read)  (known)
    answer                                  11          3

Attention solves it by reading at every query; a recurrent state alone cannot hold the novel bindings; a
parametric memory answers the recurring queries without reading. Deviation: 70% of the *bindings* and 70% of
the *queries* recur (``docs/deviations.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from torchcram.tasks.base import Floors
from torchcram.tasks.oscillator import Oscillator
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.tasks.srcd_oracle import kalman_mse, needs_read
from torchcram.types import Batch, Head


@dataclass(frozen=True, kw_only=True)
class _Events:
    """The bindings and queries of each sequence, in the order in which they happen; keys >= patterns are
    novel ones.
    """

    position: Int[Tensor, "batch events"]
    query: Bool[Tensor, "batch events"]
    key: Int[Tensor, "batch events"]
    value: Int[Tensor, "batch events"]
    distance: Int[Tensor, "batch events"]
    overridden: Bool[Tensor, "batch events"]
    unanswerable: Bool[Tensor, "batch events"]


class SRCD:
    """The SRCD task.

    Args:
        config: what the sequences look like.

    Attributes:
        calibrated_head, skippable: see :mod:`torchcram.tasks.base`.
    """

    calibrated_head: ClassVar[str] = "answer"
    skippable: ClassVar[str] = "recurring"

    def __init__(self, config: SRCDConfig):
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        self.keys = normalize(torch.randn(config.patterns, config.key_size, generator=generator), dim=-1)
        first = torch.randint(config.values, (2, config.patterns), generator=generator)
        shift = torch.randint(1, config.values, (2, config.patterns), generator=generator)
        self._maps = torch.stack([first, (first + shift) % config.values])
        rank = torch.randperm(config.patterns, generator=generator) + 1.0
        self._law = (
            rank.pow(-config.zipf_exponent) if config.pattern_law == "zipf" else torch.ones(config.patterns)
        )

    @property
    def input_size(self) -> int:
        """Features of a step: observation, flags (unless typeless), key, one-hot value."""
        return 2 + (0 if self.config.typeless else 2) + self.config.key_size + self.config.values

    @property
    def heads(self) -> tuple[Head, ...]:
        """``answer`` (the value at queries) and ``next_observation`` (everywhere)."""
        classes = self.config.values + (self.config.unanswerable > 0)
        return (
            Head(name="answer", kind="classification", size=classes),
            Head(name="next_observation", kind="regression", size=2),
        )

    @property
    def patterns(self) -> int:
        """Number of recurring patterns."""
        return self.config.patterns

    def oracle(self, batch: Batch) -> Floors:
        """Return what a batch takes: a read at every query that no pattern answers, and ``kalman_mse``."""
        return Floors(
            needs_read=needs_read(batch, config=self.config),
            figures={"kalman_mse": kalman_mse(batch, config=self.config)},
        )

    def pattern_values(self, *, step: int = 0, context: int = 0) -> Int[Tensor, " patterns"]:
        """Return the value of each recurring pattern at a training step, in a context (0 or 1)."""
        drifted = self.config.drift_at is not None and step >= self.config.drift_at
        return self._maps[int(drifted), context if self.config.contextual else 0]

    @property
    def introduced(self) -> Int[Tensor, " patterns"]:
        """Training step at which each pattern first appears; late ones are the last indices."""
        steps = torch.zeros(self.config.patterns, dtype=torch.long)
        end = self.config.patterns
        for start, count in reversed(self.config.introduce_at):
            steps[end - count : end] = start
            end -= count
        return steps

    def batch(
        self, size: int, *, generator: torch.Generator, step: int = 0, length: int | None = None
    ) -> Batch:
        """Draw ``size`` sequences as they are at training step ``step``.

        See :class:`torchcram.tasks.base.Task`.
        """
        length = self.config.length if length is None else length
        self.config.check_length(length)
        gaps = self._gaps(size, length + 1, generator)
        oscillator, context = self._oscillator(size, generator)
        path = oscillator.simulate(gaps, generator=generator)
        events = self._events(size, length, step, context, generator)
        novel_keys = normalize(
            torch.randn(size, events.key.shape[1], self.config.key_size, generator=generator), dim=-1
        )
        return self._assemble(gaps, path, oscillator, events, novel_keys)

    def _gaps(self, size: int, length: int, generator: torch.Generator) -> Float[Tensor, "batch time"]:
        uniform = torch.rand(size, length, generator=generator).clamp_min(1e-9)
        gaps = (self.config.gap_min * uniform.pow(-1 / self.config.gap_exponent)).clamp_max(
            self.config.gap_max
        )
        gaps[:, 0] = 0.0
        return gaps

    def _oscillator(self, size: int, generator: torch.Generator) -> tuple[Oscillator, Int[Tensor, " batch"]]:
        draws = torch.rand(3, size, generator=generator)
        context = (
            torch.randint(2, (size,), generator=generator)
            if self.config.contextual
            else torch.zeros(size, dtype=torch.long)
        )
        (low_f, high_f), (low_d, high_d) = self.config.frequency, self.config.damping
        frequency = (low_f + (high_f - low_f) * draws[0]) * (1 - 2 * context)
        oscillator = Oscillator(
            frequency=frequency,
            damping=low_d + (high_d - low_d) * draws[1],
            phase=2 * torch.pi * draws[2],
            stationary_std=self.config.stationary_std,
            observation_std=self.config.observation_std,
        )
        return oscillator, context

    def _events(
        self, size: int, length: int, step: int, context: Int[Tensor, " batch"], generator: torch.Generator
    ) -> _Events:
        bindings, queries = self.config.events(length)
        count = bindings + queries
        position = torch.rand(size, length, generator=generator).topk(count, dim=1).indices.sort(dim=1).values
        query = self._choose_queries(size, count, queries, generator)
        recurring = self._choose_recurring(size, count, generator)
        key = self._binding_keys(recurring, step, generator)
        key, rebound = self._rebind(key, query, recurring, generator)
        maps = self._maps_of_sequences(size, step, context, generator)
        value = self._binding_values(key, rebound, maps, generator)
        earlier = torch.ones(count, count, dtype=torch.bool).tril(-1) & ~query[:, None, :]
        source = _pick(earlier & (recurring[:, :, None] == recurring[:, None, :]), generator)
        key = torch.where(query, key.gather(1, source), key)
        unanswerable = query & (torch.rand(size, count, generator=generator) < self.config.unanswerable)
        key = torch.where(unanswerable, self.config.patterns + torch.arange(count), key)
        return self._answer(position, query, key, value, earlier, unanswerable, maps)

    def _maps_of_sequences(
        self, size: int, step: int, context: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Int[Tensor, "batch patterns"]:
        """Return the value of each recurring pattern in each sequence."""
        if self.config.redrawn_map:
            return torch.randint(self.config.values, (size, self.config.patterns), generator=generator)
        return torch.stack([self.pattern_values(step=step, context=c) for c in (0, 1)])[context]

    def _choose_queries(
        self, size: int, count: int, queries: int, generator: torch.Generator
    ) -> Bool[Tensor, "batch events"]:
        """Which events query: any but the first ones, so that every query has a binding to ask for."""
        scores = torch.rand(size, count, generator=generator)
        scores[:, : 2 if 0 < self.config.recurrence < 1 else 1] = -1.0
        return torch.zeros(size, count, dtype=torch.bool).scatter(
            1, scores.topk(queries, dim=1).indices, True
        )

    def _choose_recurring(
        self, size: int, count: int, generator: torch.Generator
    ) -> Bool[Tensor, "batch events"]:
        """Which events concern recurring keys; of the first two bindings one does and one does not."""
        recurring = torch.rand(size, count, generator=generator) < self.config.recurrence
        if 0 < self.config.recurrence < 1:
            recurring[:, 1] = ~recurring[:, 0]
        return recurring

    def _binding_keys(
        self, recurring: Bool[Tensor, "batch events"], step: int, generator: torch.Generator
    ) -> Int[Tensor, "batch events"]:
        size, count = recurring.shape
        novel = (self.config.patterns + torch.arange(count)).expand(size, -1)
        if not recurring.any():
            return novel
        law = self._law * (self.introduced <= step)
        pattern = torch.multinomial(law.expand(size, -1), count, replacement=True, generator=generator)
        return torch.where(recurring, pattern, novel)

    def _rebind(
        self,
        key: Int[Tensor, "batch events"],
        query: Bool[Tensor, "batch events"],
        recurring: Bool[Tensor, "batch events"],
        generator: torch.Generator,
    ) -> tuple[Int[Tensor, "batch events"], Bool[Tensor, "batch events"]]:
        """Turn some recurring bindings into re-bindings of a key bound before: the keys, and which events
        bind again.
        """
        size, count = key.shape
        if self.config.override == 0:
            return key, torch.zeros_like(query)
        bound = recurring & ~query
        # Shuffle the recurring bindings and pair them up: in an active pair, the later one binds the key of
        # the earlier one again.
        order = torch.where(bound, torch.rand(size, count, generator=generator), -1.0).argsort(
            1, descending=True
        )
        first, second = order[:, : count // 2 * 2].unflatten(1, (-1, 2)).sort(-1).values.unbind(-1)
        active = torch.rand(first.shape, generator=generator) < 2 * self.config.override / (
            1 + self.config.override
        )
        active = active & bound.gather(1, first) & bound.gather(1, second)
        key = key.scatter(1, second, torch.where(active, key.gather(1, first), key.gather(1, second)))
        return key, torch.zeros_like(query).scatter(1, second, active)

    def _binding_values(
        self,
        key: Int[Tensor, "batch events"],
        rebound: Bool[Tensor, "batch events"],
        maps: Int[Tensor, "batch patterns"],
        generator: torch.Generator,
    ) -> Int[Tensor, "batch events"]:
        """Values as bound: a pattern's own until its key is first re-bound, the new one from then on."""
        size, count = key.shape
        fresh = torch.randint(self.config.values, (size, count), generator=generator)
        own = self._own_values(key, fresh, maps)
        if not rebound.any():
            return own
        shift = torch.randint(1, self.config.values, (size, count), generator=generator)
        upto = torch.ones(count, count, dtype=torch.bool).tril()
        source = upto & rebound[:, None, :] & (key[:, :, None] == key[:, None, :])
        other = (own + shift) % self.config.values
        return torch.where(source.any(-1), other.gather(1, source.float().argmax(-1)), own)

    def _own_values(
        self,
        key: Int[Tensor, "batch events"],
        fresh: Int[Tensor, "batch events"],
        maps: Int[Tensor, "batch patterns"],
    ) -> Int[Tensor, "batch events"]:
        if self.config.patterns == 0:
            return fresh
        known = maps.gather(1, key.clamp_max(self.config.patterns - 1))
        return torch.where(key < self.config.patterns, known, fresh)

    def _answer(
        self,
        position: Int[Tensor, "batch events"],
        query: Bool[Tensor, "batch events"],
        key: Int[Tensor, "batch events"],
        value: Int[Tensor, "batch events"],
        earlier: Bool[Tensor, "batch events events"],
        unanswerable: Bool[Tensor, "batch events"],
        maps: Int[Tensor, "batch patterns"],
    ) -> _Events:
        """Give each query the value of the latest binding of its key."""
        count = key.shape[1]
        match = earlier & (key[:, :, None] == key[:, None, :])
        latest = torch.where(match, torch.arange(count), -1).amax(-1).clamp_min(0)
        answer = torch.where(unanswerable, self.config.values, value.gather(1, latest))
        own = self._own_values(key, answer, maps)
        return _Events(
            position=position,
            query=query,
            key=key,
            value=torch.where(query, answer, value),
            distance=torch.where(query & ~unanswerable, position - position.gather(1, latest), 0),
            overridden=query & ~unanswerable & (answer != own),
            unanswerable=unanswerable,
        )

    def _assemble(
        self,
        gaps: Float[Tensor, "batch steps"],
        path: Float[Tensor, "batch steps 2"],
        oscillator: Oscillator,
        events: _Events,
        novel_keys: Tensor,
    ) -> Batch:
        size, length = gaps.shape[0], gaps.shape[1] - 1

        def spread(values: Tensor, blank: float | bool) -> Tensor:
            out = torch.full((size, length, *values.shape[2:]), blank, dtype=values.dtype)
            index = events.position.reshape(*events.position.shape, *[1] * (values.dim() - 2)).expand_as(
                values
            )
            return out.scatter(1, index, values)

        recurring = events.key < self.config.patterns
        vectors = self._key_vectors(events.key, novel_keys)
        shown = (
            one_hot(events.value.clamp_max(self.config.values - 1), self.config.values)
            * ~events.query[..., None]
        )
        flags = [] if self.config.typeless else [torch.stack([~events.query, events.query], -1).float()]
        features = torch.cat([*flags, vectors, shown.float()], -1)
        slices = {
            "query": events.query,
            "binding": ~events.query,
            "recurring": events.query & recurring & ~events.overridden,
            "novel": events.query & ~recurring & ~events.unanswerable,
            "overridden": events.overridden,
            "unanswerable": events.unanswerable,
        }
        info = {
            "pattern": spread(torch.where(recurring, events.key, -1), -1),
            "distance": spread(events.distance, 0),
            "frequency": oscillator.frequency,
            "damping": oscillator.damping,
            "phase": oscillator.phase,
        }
        return Batch(
            inputs=torch.cat([path[:, :-1], spread(features, 0.0)], -1),
            gap=gaps[:, :-1],
            horizon=gaps[:, 1:],
            targets={
                "answer": spread(torch.where(events.query, events.value, -100), -100),
                "next_observation": path[:, 1:],
            },
            slices={name: spread(flag, False) for name, flag in slices.items()},
            info=info,
        )

    def _key_vectors(
        self, key: Int[Tensor, "batch events"], novel_keys: Float[Tensor, "batch events key"]
    ) -> Float[Tensor, "batch events key"]:
        """Recurring keys from the table; novel ones by the event that introduced them."""
        event = (key - self.config.patterns).clamp_min(0)
        novel = novel_keys.gather(1, event[..., None].expand(-1, -1, self.config.key_size))
        if self.config.patterns == 0:
            return novel
        known = self.keys[key.clamp_max(self.config.patterns - 1)]
        return torch.where((key < self.config.patterns)[..., None], known, novel)


def _pick(
    allowed: Bool[Tensor, "batch events candidates"], generator: torch.Generator
) -> Int[Tensor, "batch events"]:
    """Return for each event a uniformly drawn allowed candidate (0 where none is)."""
    scores = torch.rand(allowed.shape, generator=generator)
    return torch.where(allowed, scores, -1.0).argmax(-1)
