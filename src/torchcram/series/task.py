"""Irregular series: what was observed of some variables, at moments of their own.

Two forms of the same thing: observations (time, variable, value), and masked vectors, one a moment, NaN where
nothing was observed. A model sees each step as values (0 where missing), flags (1 where observed) and the gap
to the step before. What turns one into the other is fitted on training series only. Legend: ``steps`` moments
of a series, ``variables`` columns, ``observations`` single values. Times are in the data's own unit; gaps
that a model sees are in units of the typical gap of the training series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from torchcram.series.side_heads import (
    FORECAST,
    NO_LESSONS,
    RESTORE,
    Lessons,
    forecast_targets,
    replicate_targets,
    replicated,
    restore_targets,
)
from torchcram.types import Batch, Head

# Gaps beyond so many typical ones are all the same to a model: nothing that it carried is left.
LONGEST_GAP = 1e4
# Values beyond these shares of a variable's training values, one in a thousand on either side, do not say how
# far it usually varies: a few wrong entries would.
TAIL = 0.001


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series as masked vectors: moments in rising order, at each of which something was observed.

    Attributes:
        time: in the data's own unit.
        values: NaN where missing.
    """

    time: Float64[np.ndarray, " steps"]
    values: Float64[np.ndarray, "steps variables"]

    @classmethod
    def of_observations(
        cls,
        time: Float[np.ndarray, " observations"],
        variable: Int[np.ndarray, " observations"],
        value: Float[np.ndarray, " observations"],
        *,
        variables: int,
    ) -> Series:
        """Build from observations in any order.

        NaN values are left out. Several values of one variable at one moment count as their mean, whatever
        their order.
        """
        seen = ~np.isnan(value)
        order = np.lexsort((value[seen], variable[seen], time[seen]))
        time, variable, value = (np.asarray(column)[seen][order] for column in (time, variable, value))
        moments, step = np.unique(time.astype(np.float64), return_inverse=True)
        place, cells = step * variables + variable, len(moments) * variables
        total, count = np.bincount(place, weights=value, minlength=cells), np.bincount(place, minlength=cells)
        values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return cls(time=moments, values=values.reshape(-1, variables))

    @classmethod
    def of_vectors(
        cls, time: Float[np.ndarray, " steps"], values: Float[np.ndarray, "steps variables"]
    ) -> Series:
        """Build from vectors in any order; those in which nothing was observed are left out, those of one
        moment are joined.
        """
        step, variable = np.nonzero(~np.isnan(values))
        return cls.of_observations(
            time.astype(np.float64)[step],
            variable,
            values[step, variable].astype(np.float64),
            variables=values.shape[1],
        )


@dataclass(frozen=True, kw_only=True)
class EncodedSeries:
    """A series as a model sees it: standardised values beside flags of what was observed, and gaps in
    typical gaps. At least one step.
    """

    inputs: Float[Tensor, "steps features"]
    gap: Float[Tensor, " steps"]


@dataclass(frozen=True, kw_only=True)
class SeriesStatistics:
    """What standardises series: fit it on training series, and on nothing else.

    Attributes:
        mean, std: of the observed values of each variable, its rarest ones drawn in (:data:`TAIL`); a
            constant variable has a std of 1.
        observed: whether a variable was ever observed; one that never was is hidden from the model for good.
        unit: the typical gap: the median of those between steps.
    """

    mean: Float64[np.ndarray, " variables"]
    std: Float64[np.ndarray, " variables"]
    observed: Bool[np.ndarray, " variables"]
    unit: float

    @classmethod
    def fit(cls, series: Sequence[Series]) -> SeriesStatistics:
        """Measure training series.

        Raises:
            ValueError: if there are none.
        """
        if not series:
            raise ValueError("no training series: statistics need at least one")
        values = np.concatenate([one.values for one in series])
        seen = ~np.isnan(values)
        mean, std = (
            np.array([_mean_and_std(column[known]) for column, known in zip(values.T, seen.T, strict=True)])
            .reshape(-1, 2)
            .T
        )
        gaps = np.concatenate([np.diff(one.time) for one in series])
        unit = float(np.median(gaps)) if len(gaps) else 1.0
        return cls(mean=mean, std=std, observed=seen.any(0), unit=unit)

    def encode(self, series: Series, *, start: float | None = None) -> EncodedSeries:
        """Return what a model sees of a series.

        One without any observation is a single step in which nothing was seen.

        Args:
            series: with the variables that the statistics know.
            start: moment from which the first gap counts; None for the first step itself.
        """
        if not len(series.time):
            return EncodedSeries(inputs=torch.zeros(1, 2 * len(self.mean)), gap=torch.zeros(1))
        seen = ~np.isnan(series.values) & self.observed
        values = np.where(
            seen, compressed((np.where(seen, series.values, self.mean) - self.mean) / self.std), 0.0
        )
        gap = np.diff(series.time, prepend=series.time[0] if start is None else start) / self.unit
        return EncodedSeries(
            inputs=torch.from_numpy(np.concatenate([values, seen], 1)).float(),
            gap=torch.from_numpy(np.clip(gap, 0.0, LONGEST_GAP)).float(),
        )


def _mean_and_std(values: Float64[np.ndarray, " observations"]) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    # Of fewer than a thousand values none is drawn in.
    least, greatest = (
        np.quantile(values, TAIL, method="lower"),
        np.quantile(values, 1 - TAIL, method="higher"),
    )
    drawn_in = np.clip(values, least, greatest)
    mean, std = float(drawn_in.mean()), float(drawn_in.std())
    # The mean of equal values is rounded, so their deviation is not exactly zero.
    return mean, 1.0 if std <= 1e-12 * abs(mean) else std


def compressed(values: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Return standardised values with outliers drawn in: beyond three deviations they grow as a logarithm.

    Order is kept, the slope is continuous.
    """
    size = np.abs(values)
    return np.where(size <= 3.0, values, np.sign(values) * (3.0 + np.log(np.maximum(size, 3.0) - 2.0)))


class SeriesTask:
    """A task that draws from given series, with targets per sequence.

    Args:
        series: what to draw from.
        targets: one entry a series, by head name.
        heads: per sequence.
        weights: how often each series is drawn, relative to others; None for equally often.
        pool, hide, lessons: how series are drawn, see :meth:`drawn`.
        most_tokens: steps of a batch, padding included, beyond which fewer series are kept than were asked
            for, at least one; None for any.
        variables: whose features repeat in blocks of this many columns; None for values beside flags.
        flags: whether a step's features are values beside as many flags of what was observed; else they are
            values, then two blocks: what was observed right now, and how fresh it is (see
            :func:`torchcram.series.history.encode_carried`).

    Raises:
        ValueError: if there are no series, or targets do not fit them.
    """

    def __init__(
        self,
        series: Sequence[EncodedSeries],
        targets: dict[str, Tensor],
        heads: tuple[Head, ...],
        *,
        weights: Tensor | None = None,
        pool: int = 1,
        hide: float = 0.0,
        lessons: Lessons = NO_LESSONS,
        most_tokens: int | None = None,
        variables: int | None = None,
        flags: bool = True,
    ):
        if not series:
            raise ValueError("a task needs at least one series to draw from")
        for name, target in targets.items():
            if len(target) != len(series):
                raise ValueError(f"target {name!r} has {len(target)} entries for {len(series)} series")
        self.series, self.targets = tuple(series), targets
        self.weights = torch.ones(len(series)) if weights is None else weights
        self.flags, self.pool, self.hide = flags, pool, hide
        self.variables = self.input_size // 2 if variables is None else variables
        self.most_tokens = most_tokens
        self.lessons, self.own_heads, self.heads = (
            lessons,
            heads,
            (*heads, *lessons.heads(self.variables, heads)),
        )

    @property
    def draws_fewer(self) -> bool:
        """Whether a batch may hold fewer series than were asked for."""
        return self.most_tokens is not None

    @property
    def input_size(self) -> int:
        """Features of a step: a value and a flag for each variable."""
        return self.series[0].inputs.shape[1]

    @property
    def longest(self) -> int:
        """Steps of the longest series."""
        return max(len(one.gap) for one in self.series)

    @property
    def typical_length(self) -> float:
        """Root of the mean square of the lengths: of series as long, dense reads cost what they cost here."""
        return (sum(len(one.gap) ** 2 for one in self.series) / len(self.series)) ** 0.5

    @property
    def span(self) -> float:
        """Duration of the longest lasting series, from where its first gap counts, in typical gaps."""
        return max(float(one.gap.sum()) for one in self.series)

    def drawn(self, *, pool: int = 1, hide: float = 0.0, lessons: Lessons = NO_LESSONS) -> SeriesTask:
        """Return a task with the same series that are drawn in another way.

        Args:
            pool: batches that are drawn at once, sorted by length, to keep one of them at random: series of
                about equal length meet, and little is padded.
            hide: share of the variables whose features are set to zero at each step, at random. What a later
                step carries forward of them stays.
            lessons: weights of further heads.
        """
        return SeriesTask(
            self.series,
            self.targets,
            self.own_heads,
            weights=self.weights,
            pool=pool,
            hide=hide,
            lessons=lessons,
            most_tokens=self.most_tokens,
            variables=self.variables,
            flags=self.flags,
        )

    def batch(
        self, size: int, *, generator: torch.Generator, step: int = 0, length: int | None = None
    ) -> Batch:
        """Draw series with replacement; of longer ones the last ``length`` steps.

        See :class:`torchcram.tasks.base.Task`.
        """
        del step
        chosen = torch.multinomial(
            self.weights, size * self.pool, replacement=True, generator=generator
        ).tolist()
        if self.pool > 1:
            first = size * int(torch.randint(self.pool, (), generator=generator))
            chosen = sorted(chosen, key=lambda row: len(self.series[row].gap))[first : first + size]
        return self._hidden(self.rows(self._fitting(chosen, generator), last=length), generator)

    def _fitting(self, chosen: list[int], generator: torch.Generator) -> list[int]:
        """Return as many of the chosen series, at random, as fit into a batch.

        Each is as likely to be kept, and counts as much more in the mean of the fewer: long series weigh what
        they would in a whole batch.
        """
        if self.most_tokens is None:
            return chosen
        fitting = max(1, self.most_tokens // max(len(self.series[row].gap) for row in chosen))
        if fitting >= len(chosen):
            return chosen
        kept = torch.randperm(len(chosen), generator=generator)[:fitting].tolist()
        return [chosen[place] for place in kept]

    def _hidden(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Hide observations, and ask for them where a head restores them."""
        if self.lessons.restore and not self.hide:
            raise ValueError(
                "nothing is hidden that could be restored: hide some observations in training, hide > 0"
            )
        if not self.hide:
            return batch
        kept = torch.rand(*batch.gap.shape, self.variables, generator=generator) >= self.hide
        asked = {RESTORE: restore_targets(self._observed(batch), kept)} if self.lessons.restore else {}
        return replace(
            batch,
            inputs=batch.inputs * kept.repeat(1, 1, self.input_size // self.variables),
            targets=batch.targets | asked,
        )

    def _observed(self, batch: Batch) -> Float[Tensor, "batch time variables"]:
        """Return the value of each variable where it was observed, NaN elsewhere and on padding."""
        blocks = batch.inputs.unflatten(-1, (-1, self.variables))
        seen = blocks.shape[-2] // 2 if self.flags else max(0, blocks.shape[-2] - 2)
        return blocks[..., 0, :].masked_fill(blocks[..., seen, :] == 0, torch.nan)

    def rows(self, chosen: Sequence[int], *, last: int | None = None) -> Batch:
        """Return the chosen series, padded at the end to the longest of them; ``last`` keeps so many of
        each one's last steps.
        """
        batch = collate([_last(self.series[row], last) for row in chosen])
        targets = {name: target[list(chosen)] for name, target in self.targets.items()}
        return replace(batch, targets=targets | self._side_targets(batch, targets))

    def _side_targets(self, batch: Batch, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the targets of the side heads for a batch of which nothing is hidden."""
        targets = {
            replicated(name): replicate_targets(target, batch.gap.shape[1])
            for name, target in own.items()
            if self.lessons.replicate
        }
        if self.lessons.forecast:
            targets[FORECAST] = forecast_targets(self._observed(batch))
        if self.lessons.restore:
            targets[RESTORE] = torch.full_like(self._observed(batch), torch.nan)
        return targets


def collate(series: Sequence[EncodedSeries]) -> Batch:
    """Return series as one batch without targets, padded with zeros at the end."""
    length = torch.tensor([len(one.gap) for one in series])
    return Batch(
        inputs=pad_sequence([one.inputs for one in series], batch_first=True),
        gap=pad_sequence([one.gap for one in series], batch_first=True),
        mask=torch.arange(int(length.max())) < length[:, None],
    )


def _last(series: EncodedSeries, steps: int | None) -> EncodedSeries:
    return series if steps is None else EncodedSeries(inputs=series.inputs[-steps:], gap=series.gap[-steps:])
