"""aeon's own checks, of a classifier and a regressor of aeon that hold ours: every form in which aeon keeps
collections is one of ours. They run where aeon is installed, and are skipped elsewhere.
"""

import warnings

import numpy as np
import pytest

pytest.importorskip("aeon", reason="needs aeon: pip install aeon")

from aeon.classification import BaseClassifier
from aeon.regression import BaseRegressor
from aeon.testing.estimator_checking import check_estimator

from torchcram import CRAMClassifier, CRAMRegressor

TAGS = {
    "X_inner_type": ["np-list", "numpy3D"],
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:missing_values": True,
}


class Classifier(BaseClassifier):
    """Ours as one of aeon's, hardly trained."""

    _tags = TAGS

    def __init__(self, max_steps: int = 2, random_state=0):
        self.max_steps, self.random_state = max_steps, random_state
        super().__init__()

    def _fit(self, X, y):  # noqa: N803
        self.model_ = CRAMClassifier(members=1, max_steps=self.max_steps, random_state=self.random_state)
        self.model_.fit(X, y)
        return self

    def _predict(self, X):  # noqa: N803
        return self.model_.predict(X)

    def _predict_proba(self, X):  # noqa: N803
        return self.model_.predict_proba(X)


class Regressor(BaseRegressor):
    """The same for numbers."""

    _tags = TAGS

    def __init__(self, max_steps: int = 2, random_state=0):
        self.max_steps, self.random_state = max_steps, random_state
        super().__init__()

    def _fit(self, X, y):  # noqa: N803
        self.model_ = CRAMRegressor(members=1, max_steps=self.max_steps, random_state=self.random_state)
        self.model_.fit(X, np.asarray(y, float))
        return self

    def _predict(self, X):  # noqa: N803
        return self.model_.predict(X)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [Classifier, Regressor])
def test_the_checks_of_aeon_pass(estimator, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = check_estimator(estimator)
    assert len(outcome) > 20
    assert {check: told for check, told in outcome.items() if told != "PASSED"} == {}
