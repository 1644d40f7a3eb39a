"""A trainer that finds out whether reads pay: it acquires with and without them, by turns.

Few series are told apart by looking something up; most are by what the recurrence carries. Steps that read
nothing are cheap, and keep the model from leaning on reads that add nothing. Held-out data then say what it
loses without reads. If that is less than their price, training goes on without them; else the router takes
over.
"""

from __future__ import annotations

from typing import cast

from torchcram.series.task import SeriesTask
from torchcram.training.trainer import Trainer
from torchcram.types import NEVER_FAMILIAR, RoutingControl

NO_READS = RoutingControl(reads="none", threshold_shift=NEVER_FAMILIAR)

# Steps of a series for which reading costs a training step about as much again as all else.
COSTLY = 500


def turns_of(length: float) -> int:
    """Return how many steps of acquisition go to one that reads, for series of a typical length."""
    return 2 + int(length / COSTLY)


class ReadingTrainer(Trainer):
    """A trainer of whose steps of acquisition one in ``turns`` reads, and none once reads were given up.

    It is one in two for short series. What reads cost grows with the square of the length, so longer ones are
    read in turn with more steps that read nothing: acquisition takes about twice what it would without reads.
    """

    gave_up = False

    @property
    def turns(self) -> int:
        """How many steps of acquisition go to one that reads."""
        return turns_of(cast(SeriesTask, self.task).typical_length)

    def control(self) -> RoutingControl:
        """See :class:`torchcram.training.trainer.Trainer`."""
        if self.gave_up or (self.acquiring and self.step % self.turns):
            return NO_READS
        return super().control()

    def evaluation_controls(self) -> tuple[RoutingControl, ...]:
        """Return all that a model may be kept with: while acquiring, all reads, and none."""
        if self.gave_up:
            return (NO_READS,)
        return (*super().evaluation_controls(), *((NO_READS,) if self.acquiring else ()))

    def route(self, *, reads: bool) -> bool:
        """See :class:`torchcram.training.trainer.Trainer`; without reads nothing is routed."""
        self.gave_up = not reads
        return reads and super().route(reads=True)
