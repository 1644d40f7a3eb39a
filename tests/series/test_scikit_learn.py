"""scikit-learn's own checks: only what input of three axes justifies fails, and the docs say why.

The checks bring two axes, which are taken as (series, time): their features are steps of one channel. One
step of training serves all checks but those which ask for a score.
"""

from pathlib import Path

import pytest
from sklearn.utils.estimator_checks import check_estimator, check_regressors_train

from torchcram import CRAMClassifier, CRAMRegressor

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs" / "irregular_series.md"
STEPS_ARE_NO_FEATURES = "the columns of X are steps, and a series may have any number of them"
LONG_FRAME = "a frame is read as a long one, a row an observation"
EXPECTED = {
    "check_n_features_in": STEPS_ARE_NO_FEATURES,
    "check_n_features_in_after_fitting": STEPS_ARE_NO_FEATURES,
    "check_classifiers_train": STEPS_ARE_NO_FEATURES,
    "check_classifier_data_not_an_array": LONG_FRAME,
    "check_regressor_data_not_an_array": LONG_FRAME,
}
# What fails here alone.
HERE = {
    "check_regressors_train": "needs a trained model: see below",
    "check_do_not_raise_errors_in_init_or_set_params": "annotations are enforced while tests run",
}
HOW = {"members": 1, "random_state": 0}


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [CRAMClassifier(**HOW, max_steps=1), CRAMRegressor(**HOW, max_steps=1)])
def test_checks_pass_but_those_that_ask_for_features(estimator):
    outcome = check_estimator(
        estimator, expected_failed_checks={**EXPECTED, **HERE}, on_skip=None, on_fail="raise"
    )
    assert len(outcome) > 40
    failed = {check["check_name"] for check in outcome if check["status"] == "xfail"}
    assert failed - set(HERE) == {name for name in EXPECTED if _asked_of(name, estimator)}


def _asked_of(check: str, estimator: object) -> bool:
    other = "regressor" if isinstance(estimator, CRAMClassifier) else "classifier"
    return other not in check


@pytest.mark.filterwarnings("ignore")
def test_a_regressor_learns_what_scikit_learn_asks_for():
    check_regressors_train("CRAMRegressor", CRAMRegressor(**HOW, max_steps=120))


def test_every_check_that_fails_is_listed_with_its_reason():
    page = " ".join(DOCS.read_text().split())
    for check, reason in EXPECTED.items():
        assert f"`{check}`" in page
        assert reason in page
