"""What both estimators for series share: members, what is held out, running over series, route maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from torchcram.series.arguments import SeriesArguments
from torchcram.series.fitted import FittedSeries
from torchcram.series.learning import Labelled, fit_series
from torchcram.series.panel import Panel, read_panel
from torchcram.series.splits import held_out
from torchcram.series.times import TimeScale
from torchcram.strict import optional
from torchcram.types import Head

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
else:
    BaseEstimator = optional("sklearn.base", extra="sklearn").BaseEstimator

validation = optional("sklearn.utils.validation", extra="sklearn")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the models whose mean predicts.

    Attributes:
        fitted: what predicts.
        read_rate: share of the steps that it reads, on the series held out.
    """

    fitted: FittedSeries
    read_rate: float


@dataclass(frozen=True, kw_only=True)
class RouteMap:
    """Which memory answered each step of one series.

    Attributes:
        time: of each step, in the series' own unit; of dates and durations, seconds from its first stamp.
        routes: :class:`torchcram.types.Route` of each step, in each layer of each member.
        read: whether the step read in any of them.
    """

    time: Float64[np.ndarray, " steps"]
    routes: Int[np.ndarray, "layers steps"]
    read: Bool[np.ndarray, " steps"]


class SeriesEstimator(BaseEstimator):
    """What both estimators share: arguments, what is held out, and running over series.

    A fit changes the estimator at its very end: one that fails leaves it as it was.
    """

    def _members(
        self,
        known: Labelled,
        validation_data: Labelled | None,
        head: Head,
        *,
        strata: Int[np.ndarray, " series"],
        groups: np.ndarray | None,
    ) -> list[Member]:
        """Train the members, each with series of its own held out."""
        arguments = SeriesArguments.of(self.get_params(deep=False))
        known.panel.require_observations()
        generator = validation.check_random_state(self.random_state)
        members: list[Member] = []
        for number in range(arguments.members):
            train, held = known, validation_data
            if held is None and arguments.early_stopping:
                trained, kept = held_out(
                    strata, groups, share=arguments.validation_share, generator=generator
                )
                train, held = known.rows(trained), known.rows(kept) if len(kept) else None
            seed = int(generator.randint(2**31 - 1))
            fitted = fit_series(arguments, train, held, head, seed=seed, number=number)
            members.append(Member(fitted=fitted, read_rate=fitted.read_rate((held or train).panel)))
        return members

    def _judged(self, validation_data: Any, groups: Any, panel: Panel) -> tuple[Panel, Any, Any] | None:
        """Return what early stopping judges by, if it was given: the panel, and series and targets as given.

        Raises:
            ValueError: for what is no pair, other channels or other time stamps than those of training, and
                where other arguments say something else.
        """
        if validation_data is None:
            return None
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise ValueError("validation_data is no pair: pass (series, targets)")
        if not self.early_stopping:
            raise ValueError("validation_data serves early stopping alone: leave early_stopping=True")
        if groups is not None:
            raise ValueError(
                "groups say what is held out of X, but validation_data is judged instead: pass one of them"
            )
        judged = read_panel(validation_data[0], channels=panel.channels)
        judged.require_observations()
        TimeScale.of(panel.series, panel.clock).check(judged.series, judged.clock)
        return judged, *validation_data

    def _keep(self, members: Sequence[Member], panel: Panel) -> None:
        self.fitted_ = tuple(member.fitted for member in members)
        self.read_rate_ = float(np.mean([member.read_rate for member in members]))
        self.n_iter_ = sum(member.fitted.steps for member in members)
        self.channels_, self.n_features_in_ = panel.channels, len(panel.channels)
        self.time_scale_ = TimeScale.of(panel.series, panel.clock)

    def _read(self, X: Any) -> Panel:  # noqa: N803
        """Read series as those of training were; warn if their unit of time is likely another."""
        panel = self._panel(X)
        self.time_scale_.check(panel.series, panel.clock)
        return panel

    def _panel(self, X: Any) -> Panel:  # noqa: N803
        validation.check_is_fitted(self)
        return read_panel(X, channels=self.channels_)

    def _outputs(self, panel: Panel) -> Float64[Tensor, "members series outputs"]:
        """Return the head's output for each series, of each member."""
        return torch.stack([fitted.outputs(fitted.encoded(panel)) for fitted in self.fitted_])

    def explain(self, X: Any) -> list[RouteMap]:  # noqa: N803
        """Return the route map of each series. A series without observations has none: its map is empty."""
        panel = self._read(X)
        members = zip(*(fitted.routes(fitted.encoded(panel)) for fitted in self.fitted_), strict=True)
        return [
            RouteMap(
                time=one.time,
                routes=np.concatenate([routes[:, : len(one.time)] for routes, _ in maps]),
                read=np.any([read[: len(one.time)] for _, read in maps], axis=0),
            )
            for one, maps in zip(panel.series, members, strict=True)
        ]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array, tags.input_tags.allow_nan = True, True
        return tags
