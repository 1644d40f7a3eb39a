"""What experiment 15 compares, each with its defaults: fitted on series and labels, asked for chances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from data import Pair

STACKED = ("cram", "transformer", "ssm", "seqboat", "sliding_window", "static_hybrid", "mixture_of_depths")
ENCODERS = ("grud", "mtand")


class Summaries:
    """A classifier of scikit-learn that sees a summary of each channel: see ``summary_features.py``."""

    def __init__(self, model: Any):
        self.model = model

    def fit(self, pairs: list[Pair], label: np.ndarray, groups: np.ndarray) -> None:
        del groups
        features = summaries(pairs)
        low, high = np.nanmin(features, 0), np.nanmax(features, 0)
        self.columns = np.flatnonzero(low < high)
        self.model.fit(features[:, self.columns], label)

    def predict_proba(self, pairs: list[Pair]) -> np.ndarray:
        return self.model.predict_proba(summaries(pairs)[:, self.columns])


def summaries(pairs: list[Pair]) -> np.ndarray:
    from torchcram.series.summary_features import summarise
    from torchcram.series.task import Series

    return np.stack([summarise(Series.of_vectors(time, values.T)) for time, values in pairs])


class Rocket:
    """MiniRocket (aeon) on series resampled to 100 steps by linear interpolation, then its own ridge."""

    def __init__(self, seed: int):
        self.seed = seed

    def fit(self, pairs: list[Pair], label: np.ndarray, groups: np.ndarray) -> None:
        from aeon.transformations.collection.convolution_based import MiniRocket
        from sklearn.linear_model import LogisticRegressionCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        del groups
        seen = np.concatenate([values for _, values in pairs], 1)
        self.mean = np.nan_to_num(np.nanmean(seen, 1))
        self.scale = np.nan_to_num(np.nanstd(seen, 1), nan=1.0) + 1e-9
        ridge = LogisticRegressionCV(Cs=6, cv=3, max_iter=300, use_legacy_attributes=False)
        self.model = make_pipeline(
            MiniRocket(n_kernels=2000, random_state=self.seed), StandardScaler(), ridge
        )
        self.model.fit(self.resampled(pairs), label)

    def predict_proba(self, pairs: list[Pair]) -> np.ndarray:
        return self.model.predict_proba(self.resampled(pairs))

    def resampled(self, pairs: list[Pair]) -> np.ndarray:
        return np.stack([self.one(time, values) for time, values in pairs])

    def one(self, time: np.ndarray, values: np.ndarray) -> np.ndarray:
        if not len(time):
            return np.zeros((len(values), 100))
        moments = np.linspace(time[0], time[-1] + 1e-9, 100)
        channels = []
        for mean, scale, column in zip(self.mean, self.scale, values, strict=True):
            seen = ~np.isnan(column)
            line = np.interp(moments, time[seen], column[seen]) if seen.any() else np.full(100, mean)
            channels.append((line - mean) / scale)
        return np.stack(channels)


class Estimator:
    """``CRAMClassifier`` with its defaults, and a mixer or encoder of the package inside."""

    def __init__(self, mixer: str, seed: int, **arguments: Any):
        from torchcram import CRAMClassifier

        self.model = CRAMClassifier(mixer=mixer, random_state=seed, **arguments)

    def fit(self, pairs: list[Pair], label: np.ndarray, groups: np.ndarray) -> None:
        known = {"groups": groups} if "groups" in self.model.fit.__code__.co_varnames else {}
        self.model.fit(pairs, label, **known)

    def predict_proba(self, pairs: list[Pair]) -> np.ndarray:
        return self.model.predict_proba(pairs)


def trees(name: str, seed: int) -> Summaries:
    from sklearn import ensemble

    if name == "boosting":
        return Summaries(ensemble.HistGradientBoostingClassifier(random_state=seed))
    return Summaries(ensemble.ExtraTreesClassifier(n_estimators=300, random_state=seed))


def regression() -> Summaries:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return Summaries(make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=2000)))


METHODS: dict[str, Callable[[int], Any]] = {
    **{name: (lambda seed, name=name: Estimator(name, seed)) for name in (*STACKED, *ENCODERS)},
    **{name: (lambda seed, name=name: trees(name, seed)) for name in ("boosting", "extra_trees")},
    "logistic": lambda seed: regression(),
    "minirocket": Rocket,
}
