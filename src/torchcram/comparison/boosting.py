"""Gradient-boosted trees on summary features (scikit-learn's own): no time, no sequence, and hard to beat."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from torchcram.comparison.problems import Problem, Table
from torchcram.comparison.scores import Outcome
from torchcram.strict import optional

# Rounds without a gain on held-out rows of the training part that end boosting.
PATIENCE = 20


class Boosting:
    """Trees fitted to the training part of a split.

    Args:
        problem, number: what to learn, and which split of it.
        parameters: of scikit-learn's ``HistGradientBoostingClassifier``.
        seed: of its draws.
    """

    def __init__(self, problem: Problem, number: int, parameters: Mapping[str, Any], *, seed: int):
        ensemble = optional("sklearn.ensemble", extra="tune")
        self.problem, self.number, self.classes = problem, number, problem.head.size
        table = problem.tables(number, ["train"])["train"]
        self.columns = informative(table)
        self.model = ensemble.HistGradientBoostingClassifier(**parameters, early_stopping=True, n_iter_no_change=PATIENCE, random_state=seed)
        self.model.fit(table.features[:, self.columns], table.truth)

    def judge(self, part: str) -> Outcome:
        """Return predictions for a part of the split; classes that training did not have get no probability."""
        table = self.problem.tables(self.number, [part])[part]
        begin = time.perf_counter()
        known = self.model.predict_proba(table.features[:, self.columns])
        seconds = time.perf_counter() - begin
        probability = np.zeros((len(known), self.classes))
        probability[:, self.model.classes_] = known
        return Outcome(probability=probability, truth=table.truth, attention_share=None, per_second=len(known) / seconds)


def informative(table: Table) -> np.ndarray:
    """Return which columns take at least two values: the trees' bins cannot be found for others."""
    low, high = (bound(np.where(np.isnan(table.features), other, table.features), 0) for bound, other in ((np.min, np.inf), (np.max, -np.inf)))
    return np.flatnonzero(low < high)
