"""How series become what a model sees, fitted on training series: see ``history.py`` and ``task.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchcram.series.history import encode_carried, with_running_statistics
from torchcram.series.task import EncodedSeries, Series, SeriesStatistics


@dataclass(frozen=True, kw_only=True)
class PanelEncoder:
    """Standardises series, and tells each step of what came before it.

    Attributes:
        statistics: of the training series, running statistics included where there are any.
        channels: of a series.
        history: add running statistics of each channel.
        carried: carry values forward, with how fresh they are; else values stand beside flags.
    """

    statistics: SeriesStatistics
    channels: int
    history: bool
    carried: bool

    @classmethod
    def fit(cls, series: Sequence[Series], *, history: bool, carried: bool) -> PanelEncoder:
        """Measure training series."""
        extended = [with_running_statistics(one) if history else one for one in series]
        return cls(
            statistics=SeriesStatistics.fit(extended),
            channels=series[0].values.shape[1],
            history=history,
            carried=carried,
        )

    def encode(self, series: Series) -> EncodedSeries:
        """Return what a model sees of a series; one without observations is a step in which nothing was
        seen.
        """
        extended = with_running_statistics(series) if self.history else series
        if self.carried:
            return encode_carried(self.statistics, extended, variables=self.channels)
        return self.statistics.encode(extended)

    @property
    def nothing(self) -> EncodedSeries:
        """A series without observations."""
        return self.encode(Series(time=np.empty(0), values=np.empty((0, self.channels))))
