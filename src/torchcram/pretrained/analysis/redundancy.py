"""Redundancy of attention under every definition: scores of single operations, shares over thresholds,
intervals by documents.

An operation is the attention of one block (or of one head) for one token. It counts as redundant under a
definition if its score reaches a threshold:

- ``explained``: one minus squared error over squared distance from the mean output;
- ``cosine``: of output and prediction, as they are (the mean output alone can make it high);
- ``centred_cosine``: of both, with the mean output taken away;
- ``closeness``: one minus the length of the error over the length of the output (one minus the relative
error).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

DEFINITIONS = ("explained", "cosine", "centred_cosine", "closeness")
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
RESAMPLES = 1000
TINY = 1e-12

Scores = dict[str, Float[Tensor, "..."]]


def operation_scores(
    output: Float[Tensor, "*tokens width"],
    predicted: Float[Tensor, "*tokens width"],
    mean: Float[Tensor, "*broad width"],
) -> Scores:
    """Return the score of each operation under each definition; the mean is that of all tokens (of each
    head, where tokens have heads).
    """
    wrong = (output - predicted).square().sum(-1)
    spread, size = (output - mean).square().sum(-1), output.square().sum(-1)
    return {
        "explained": 1 - wrong / (spread + TINY),
        "cosine": cosine_similarity(output, predicted, dim=-1, eps=TINY),
        "centred_cosine": cosine_similarity(output - mean, predicted - mean, dim=-1, eps=TINY),
        "closeness": 1 - (wrong / (size + TINY)).sqrt(),
    }


def block_influence(
    residual: Float[Tensor, "tokens width"], output: Float[Tensor, "tokens width"]
) -> Float[Tensor, " tokens"]:
    """Return LLM-Drop's similarity (arXiv 2406.15786): the cosine of the stream before and after the block
    adds its output; high means little influence.
    """
    return cosine_similarity(residual, residual + output, dim=-1)


def shares_over_thresholds(
    scores: Float[np.ndarray, "layers tokens"], documents: Int[np.ndarray, " tokens"]
) -> dict[str, list[float]]:
    """Return share and 95% interval at each threshold; the interval is a bootstrap over documents, which
    are what is independent.
    """
    groups, place = np.unique(documents, return_inverse=True)
    sizes = np.bincount(place) * len(scores)
    counts = np.stack([np.bincount(place, weights=(scores >= threshold).sum(0)) for threshold in THRESHOLDS])
    low, high = document_interval(counts, sizes)
    return {
        "threshold": list(THRESHOLDS),
        "share": (counts.sum(1) / sizes.sum()).tolist(),
        "low": low,
        "high": high,
    }


def document_interval(
    sums: Float[np.ndarray, "rows documents"], sizes: Int[np.ndarray, " documents"], *, seed: int = 0
) -> tuple[list[float], list[float]]:
    """Return the bootstrap interval of each row's mean, ``sums`` over ``sizes``, when documents are drawn
    anew.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(sizes), size=(RESAMPLES, len(sizes)))
    means = sums[:, drawn].sum(-1) / sizes[drawn].sum(-1)
    low, high = np.quantile(means, (0.025, 0.975), axis=1)
    return low.tolist(), high.tolist()


def class_table(
    scores: dict[str, Float[np.ndarray, "layers tokens"]],
    classes: dict[str, Bool[np.ndarray, " tokens"]],
    *,
    threshold: float = 0.8,
) -> dict[str, dict[str, float]]:
    """Return, for each class of tokens, its share of the tokens, and under each definition the share of
    operations at the threshold.
    """
    table = {}
    for name, members in classes.items():
        if members.any():
            table[name] = {"tokens": float(members.mean())} | {
                key: float((values[:, members] >= threshold).mean()) for key, values in scores.items()
            }
    return table


def threshold_for(share: float, curve: dict[str, list[float]]) -> float | None:
    """Return the threshold at which a curve of shares passes ``share``, None if it never does."""
    pairs = zip(curve["threshold"], curve["share"], strict=True)
    return next(
        (_between(share, upper, lower) for upper, lower in pairwise(pairs) if upper[1] >= share >= lower[1]),
        None,
    )


def _between(share: float, upper: tuple[float, float], lower: tuple[float, float]) -> float:
    part = 0.0 if upper[1] == lower[1] else (upper[1] - share) / (upper[1] - lower[1])
    return upper[0] + part * (lower[0] - upper[0])
