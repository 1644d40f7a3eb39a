"""Gradient-boosted trees on summary features (scikit-learn's own): no time, no sequence, and hard to beat."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from torchcram.series.comparison.problems import Problem, Table
from torchcram.series.comparison.scores import Outcome, log_loss
from torchcram.strict import optional

# Rounds between judgements, and judgements without a gain that end boosting.
ROUNDS, PATIENCE = 20, 2


class Boosting:
    """Trees fitted to the training part of a split, as many as its validation part wants.

    Args:
        problem, number: what to learn, and which split of it.
        parameters: of scikit-learn's ``HistGradientBoostingClassifier``; ``max_iter`` is the most rounds.
        seed: of its draws.
        limit: seconds after which no further rounds begin.
    """

    def __init__(
        self, problem: Problem, number: int, parameters: Mapping[str, Any], *, seed: int, limit: float
    ):
        ensemble = optional("sklearn.ensemble", extra="tune")
        self.classes = problem.head.size
        self.problem, self.number, table = problem, number, problem.tables(number, ["train"])["train"]
        self.columns = informative(table)
        self.model = ensemble.HistGradientBoostingClassifier(
            **parameters, early_stopping=False, warm_start=True, random_state=seed
        )
        self._fit(table, most=int(parameters["max_iter"]), end=time.monotonic() + limit)

    def _fit(self, table: Table, *, most: int, end: float) -> None:
        held, best, waited, kept = (
            self.problem.tables(self.number, ["validation"])["validation"],
            math.inf,
            0,
            self.model,
        )
        for rounds in range(min(ROUNDS, most), most + 1, ROUNDS):
            self.model.set_params(max_iter=rounds).fit(table.features[:, self.columns], table.truth)
            loss, waited = log_loss(self._judged(held)), waited + 1
            if loss < best:
                best, waited, kept = loss, 0, copy.deepcopy(self.model)
            if waited >= PATIENCE or time.monotonic() >= end:
                break
        self.model = kept

    def judge(self, part: str) -> Outcome:
        """Return predictions for a part of the split; classes that training did not have get no
        probability.
        """
        return self._judged(self.problem.tables(self.number, [part])[part])

    def _judged(self, table: Table) -> Outcome:
        begin = time.perf_counter()
        known = self.model.predict_proba(table.features[:, self.columns])
        seconds = time.perf_counter() - begin
        probability = np.zeros((len(known), self.classes))
        probability[:, self.model.classes_] = known
        return Outcome(
            probability=probability, truth=table.truth, attention_share=None, per_second=len(known) / seconds
        )


def informative(table: Table) -> np.ndarray:
    """Return which columns take at least two values: the trees' bins cannot be found for others."""
    low, high = (
        bound(np.where(np.isnan(table.features), other, table.features), 0)
        for bound, other in ((np.min, np.inf), (np.max, -np.inf))
    )
    return np.flatnonzero(low < high)
