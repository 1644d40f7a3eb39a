"""Scores and shares have their planted values."""

import numpy as np
import pytest
import torch

from torchcram.pretrained.analysis.redundancy import (
    DEFINITIONS,
    THRESHOLDS,
    block_influence,
    class_table,
    document_interval,
    operation_scores,
    shares_over_thresholds,
    threshold_for,
)


def test_a_perfect_prediction_scores_one_everywhere():
    y = torch.randn(20, 8, dtype=torch.float64)
    scores = operation_scores(y, y, y.mean(0))
    assert set(scores) == set(DEFINITIONS)
    for values in scores.values():
        torch.testing.assert_close(values, torch.ones_like(values), atol=1e-6, rtol=0)


def test_the_mean_alone_looks_redundant_under_the_raw_cosine_only():
    y = 10 + torch.randn(500, 8, dtype=torch.float64)
    scores = operation_scores(y, y.mean(0).expand_as(y), y.mean(0))
    assert scores["cosine"].min() > 0.9
    assert scores["centred_cosine"].abs().max() < 1e-6
    assert scores["explained"].abs().max() < 1e-6


def test_scores_by_hand():
    scores = operation_scores(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]]), torch.zeros(2))
    assert {name: round(float(value), 4) for name, value in scores.items()} == {
        "explained": 0.36,
        "cosine": 0.6,
        "centred_cosine": 0.6,
        "closeness": 0.2,
    }


def test_heads_are_scored_apart():
    y, predicted = torch.randn(6, 3, 4), torch.randn(6, 3, 4)
    together = operation_scores(y, predicted, y.mean(0))["cosine"]
    torch.testing.assert_close(
        together[:, 1], operation_scores(y[:, 1], predicted[:, 1], y[:, 1].mean(0))["cosine"]
    )


def test_shares_fall_with_the_threshold_and_lie_in_their_interval():
    generator = np.random.default_rng(0)
    scores = generator.random((4, 600))
    curve = shares_over_thresholds(scores, np.repeat(np.arange(20), 30))
    assert curve["share"] == sorted(curve["share"], reverse=True)
    assert curve["share"][THRESHOLDS.index(0.8)] == pytest.approx((scores >= 0.8).mean())
    assert all(
        low <= share <= high
        for low, share, high in zip(curve["low"], curve["share"], curve["high"], strict=True)
    )


def test_the_interval_of_documents_is_wider_where_documents_differ():
    sizes = np.full(30, 100)
    alike, apart = np.full(30, 50.0), np.repeat([0.0, 100.0], 15)
    low, high = document_interval(np.stack((alike, apart)), sizes)
    assert (low[0], high[0]) == (0.5, 0.5)
    # The standard error of the mean of 30 documents of 0 or 1 is 0.5 / sqrt(30) = 0.091.
    assert high[1] - low[1] == pytest.approx(4 * 0.091, rel=0.2)


def test_block_influence_is_one_for_a_block_that_adds_nothing():
    stream = torch.randn(5, 8)
    torch.testing.assert_close(block_influence(stream, torch.zeros_like(stream)), torch.ones(5))
    assert block_influence(stream, -2 * stream).max() < 0


def test_classes_of_tokens_have_their_own_shares():
    table = class_table(
        {"cosine": np.array([[0.9, 0.1, 0.9, 0.1]])},
        {"even": np.array([True, False, True, False]), "none": np.zeros(4, dtype=bool)},
    )
    assert table == {"even": {"tokens": 0.5, "cosine": 1.0}}


def test_where_a_curve_passes_a_share():
    curve = {"threshold": [0.2, 0.4, 0.6], "share": [1.0, 0.8, 0.2]}
    assert threshold_for(0.88, curve) == pytest.approx(0.32)
    assert threshold_for(0.1, curve) is None
