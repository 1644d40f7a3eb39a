"""Scores are those of scikit-learn or of a hand count; calibration counts every prediction once."""

import numpy as np
import pytest

from torchcram.series.comparison.scores import Outcome, calibration, log_loss, scores


def outcome(chance: list[float], truth: list[int]) -> Outcome:
    column = np.array(chance)
    return Outcome(
        probability=np.stack([1 - column, column], 1),
        truth=np.array(truth),
        attention_share=None,
        per_second=1.0,
    )


def test_two_classes_are_scored_by_ranks_and_by_squares():
    found = scores(outcome([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]))
    assert found["auroc"] == pytest.approx(0.75)
    assert found["auprc"] == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.65**2 + 0.04) / 4)
    assert found["accuracy"] == pytest.approx(0.75)
    assert set(found) == {"auroc", "auprc", "brier", "accuracy"}


def test_more_classes_are_scored_by_hits_and_each_class_counts_the_same():
    probability = np.eye(3)[[0, 0, 0, 1, 2]]
    found = scores(
        Outcome(probability=probability, truth=np.array([0, 0, 0, 1, 1]), attention_share=0.1, per_second=1.0)
    )
    assert found == {"accuracy": pytest.approx(0.8), "macro_f1": pytest.approx((1 + 2 / 3 + 0) / 3)}


def test_the_log_loss_is_that_of_the_true_class():
    assert log_loss(outcome([0.25, 0.5], [0, 1])) == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2)
    assert np.isfinite(log_loss(outcome([0.0], [1])))


def test_calibration_counts_every_prediction_once():
    found = calibration(outcome([0.0, 0.05, 0.95, 1.0, 1.0], [0, 1, 1, 1, 0]))
    assert found == [
        {"count": 2, "said": pytest.approx(0.025), "came": 0.5},
        {"count": 3, "said": pytest.approx(2.95 / 3), "came": pytest.approx(2 / 3)},
    ]
    several = Outcome(
        probability=np.array([[0.2, 0.2, 0.6], [0.7, 0.2, 0.1]]),
        truth=np.array([2, 1]),
        attention_share=None,
        per_second=1.0,
    )
    assert calibration(several) == [
        {"count": 1, "said": 0.6, "came": 1.0},
        {"count": 1, "said": 0.7, "came": 0.0},
    ]
