"""The problems on which methods are compared: parts of a split in the form that a method takes, and how they
are judged.

Stacked mixers see values carried forward; encoders of whole series impute for themselves and see flags; both
see the same running statistics. Trees see summaries. All that is fitted is fitted on the training part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64, Int

from torchcram.series.activity import HEAD as ACTIVITY
from torchcram.series.activity import Activity, ActivityTask, load_activity
from torchcram.series.physionet import HEAD as DEATH
from torchcram.series.physionet import PhysioNet, load_physionet
from torchcram.series.side_heads import Lessons
from torchcram.series.summary_features import summarise, summarise_steps
from torchcram.series.task import SeriesTask
from torchcram.types import Batch, Head

# Series that are judged at once.
JUDGED = 128
# Batches among which series are sorted by length.
POOL = 16
# Thinning of the windows on which activity is judged, and those on which trees learn it.
JUDGING, LEARNING = 1, 2

Tasks = dict[str, SeriesTask] | dict[str, ActivityTask]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of features and their classes."""

    features: Float64[np.ndarray, "rows features"]
    truth: Int[np.ndarray, " rows"]


@runtime_checkable
class Problem(Protocol):
    """What methods are compared on.

    Attributes:
        head: the output.
        goal: the score by which methods are tuned: greater is better.
        steps, sequences: most optimizer steps, and sequences in each.
        sparse: whether few observations and labels come with a series: then some are hidden in training, and
            side heads help.
        prices: bounds of the price of a read among which tuning chooses; the first trial has the last but
            one.
        controller: fields of :class:`torchcram.memory.phases.ConsolidationRules` that differ from their
            defaults.
        most_share: early stopping keeps a routed model that reads a larger share only if there is no other.
    """

    head: Head
    goal: str
    steps: int
    sequences: int
    sparse: bool
    prices: tuple[float, ...]
    controller: Mapping[str, float]
    most_share: float

    def tasks(self, number: int, *, encoder: bool, hide: float, lessons: Lessons) -> Tasks:
        """Return the parts of a split; some observations of the training part are hidden."""
        ...

    def batches(self, task: SeriesTask | ActivityTask) -> list[Batch]:
        """Return a part to be judged: the same for every method."""
        ...

    def tables(self, number: int, parts: Sequence[str]) -> dict[str, Table]:
        """Return the summaries of some parts of a split."""
        ...


class PhysioNetProblem:
    """Death in hospital, one prediction a stay. See :mod:`torchcram.series.physionet`."""

    head, goal, steps, sequences, sparse = DEATH, "auroc", 640, 64, True
    prices: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    controller: Mapping[str, float] = MappingProxyType({})
    # Any: its results are of a time before early stopping looked at reads, and those that it kept read 0.5%
    # of what dense attention reads.
    most_share = 1.0

    def __init__(self, data: PhysioNet):
        self.data = data
        self.known: dict[tuple[int, bool], dict[str, SeriesTask]] = {}

    @classmethod
    def load(cls, folder: Path | str | None = None) -> PhysioNetProblem:
        """Load the published data. See :func:`torchcram.series.physionet.load_physionet`."""
        return cls(load_physionet(folder))

    def tasks(self, number: int, *, encoder: bool, hide: float, lessons: Lessons) -> dict[str, SeriesTask]:
        """Return the parts of a split. See :class:`Problem`. Trials of one split encode its series once."""
        if (number, encoder) not in self.known:
            self.known[number, encoder] = self.data.tasks(number, running=True, carried=not encoder)
        parts = self.known[number, encoder]
        return {
            name: part.drawn(pool=POOL, hide=hide if name == "train" else 0.0, lessons=lessons)
            for name, part in parts.items()
        }

    def batches(self, task: SeriesTask | ActivityTask) -> list[Batch]:
        """Return all series, those of about equal length together."""
        assert isinstance(task, SeriesTask)
        order = sorted(range(len(task.series)), key=lambda row: len(task.series[row].gap))
        return [task.rows(order[first : first + JUDGED]) for first in range(0, len(order), JUDGED)]

    def tables(self, number: int, parts: Sequence[str]) -> dict[str, Table]:
        """Return one row a stay."""
        split = self.data.split(number)
        rows = {part: getattr(split, part) for part in parts}
        return {
            part: Table(features=self._summaries[chosen], truth=self.data.death[chosen].astype(np.int64))
            for part, chosen in rows.items()
        }

    @cached_property
    def _summaries(self) -> Float64[np.ndarray, "stays features"]:
        """The summary of every stay: nothing in it is fitted, so all splits share them."""
        return np.stack([summarise(one) for one in self.data.series()])


class ActivityProblem:
    """What somebody is doing, one prediction a step; steps without a label are not scored.

    See :mod:`torchcram.series.activity`.
    """

    head, goal, steps, sequences, sparse = ACTIVITY, "macro_f1", 800, 32, False
    # Half of the steps are left for routing, and what a read gains at one step is little: the price climbs
    # fast and far, and quality may give more on the way.
    prices: tuple[float, ...] = (0.1, 0.3, 1.0)
    controller: Mapping[str, float] = MappingProxyType(
        {"price_start": 0.03, "price_growth": 1.05, "loss_tolerance": 0.3}
    )
    most_share = 0.1

    def __init__(self, data: Activity):
        self.data = data

    @classmethod
    def load(cls, folder: Path | str | None = None) -> ActivityProblem:
        """Load the published data. See :func:`torchcram.series.activity.load_activity`."""
        return cls(load_activity(folder))

    def tasks(self, number: int, *, encoder: bool, hide: float, lessons: Lessons) -> dict[str, ActivityTask]:
        """Return the parts of a split.

        See :class:`Problem`. All channels are observed at every step: one form serves all, and labels abound.
        """
        del encoder, hide, lessons
        return self.data.tasks(number)

    def batches(self, task: SeriesTask | ActivityTask) -> list[Batch]:
        """Return windows over all recordings, each thinned once."""
        return _windows(task, JUDGING)

    def tables(self, number: int, parts: Sequence[str]) -> dict[str, Table]:
        """Return one row for each step that has a label; the training part is thinned otherwise than it
        would be judged.
        """
        tasks = self.tasks(number, encoder=False, hide=0.0, lessons=Lessons())
        return {
            part: _step_table(_windows(tasks[part], LEARNING if part == "train" else JUDGING))
            for part in parts
        }


def _windows(task: SeriesTask | ActivityTask, seed: int) -> list[Batch]:
    assert isinstance(task, ActivityTask)
    whole = task.windows(generator=torch.Generator().manual_seed(seed))
    return [whole.rows(first, first + JUDGED) for first in range(0, whole.size, JUDGED)]


def _step_table(batches: Sequence[Batch]) -> Table:
    features = np.concatenate([summarise_steps(batch.inputs.numpy(), batch.gap.numpy()) for batch in batches])
    truth = np.concatenate([batch.targets[ACTIVITY.name].numpy().ravel() for batch in batches])
    return Table(features=features[truth >= 0], truth=truth[truth >= 0])


PROBLEMS: dict[str, type[PhysioNetProblem] | type[ActivityProblem]] = {
    "physionet": PhysioNetProblem,
    "activity": ActivityProblem,
}
